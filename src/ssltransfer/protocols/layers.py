"""Evaluations of several layers of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ssltransfer.models.backbone import Backbone


def layers_to_measure(backbone: Backbone, layers: tuple[str, ...] | None, where: Path) -> tuple[str, ...]:
    """The given layers, or `default_layers`.

    Args:
        backbone: of the model.
        layers: their names.
        where: manifest of the model, for messages.

    Raises:
        LayerError: the model has no such layer.
    """
    layers = layers or default_layers(backbone)
    backbone.require(layers, where)
    return layers


def default_layers(backbone: Backbone) -> tuple[str, ...]:
    """Every convolutional map; the vectors of a backbone that has no maps (HOG)."""
    shapes = backbone.shapes()
    names = tuple(name for name in backbone.layers if name in backbone.options.base_layers)
    return tuple(name for name in names if len(shapes[name]) == 3) or names


def best_layer(values: Mapping[str, list[float]]) -> str:
    """The layer with the best mean over seeds."""
    return max(values, key=lambda layer: sum(values[layer]))
