"""Regression of maps."""

from typing import Literal

from ssltransfer.config.methods.distillation import LayerDistillation


class LayerRegression(LayerDistillation):
    """Regression of a teacher's maps, layer by layer: Noroozi's first distillation baseline, or hints (FitNets)."""

    name: Literal["layer-regression"] = "layer-regression"
    reference = "Noroozi et al. 2018, section 5 (6 i); Romero et al. 2015; protocols 3.2"
