"""The random network."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.tasks.base import TaskOptions


class RandomNetwork(TaskOptions):
    """No training: a random network, which the paper clusters as a baseline."""

    name: Literal["random"] = "random"
    reference = "Noroozi et al. 2018, section 5 (5); protocols 1.12"
    is_trainable = False
    needs_data = False
    exports_fc = True
    data_dependent_init: bool = Field(
        False,
        description="Rescale by images: unit variance, equal relative gradients (Krähenbühl et al. 2016); needs data.",
    )
