"""Models that no gradient made: random, HOG words, weights from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from ssltransfer.config.tasks.base import TaskOptions


class RandomNetwork(TaskOptions):
    """No training at all: the random network that the paper clusters as a control."""

    name: Literal["random"] = "random"
    module: ClassVar[str] = "random_network"
    exports_fc: ClassVar[bool] = True
    reference: ClassVar[str] = "Noroozi et al. 2018, section 5 (5); protocols 1.12"
    is_trainable: ClassVar[bool] = False
    needs_data: ClassVar[bool] = False
    data_dependent_init: bool = Field(
        False, description="By images: unit variance, equal relative gradients (Krähenbühl et al. 2016); needs data."
    )


class Hog(TaskOptions):
    """Vocabulary of HOG descriptors by k-means, for bags of words."""

    name: Literal["hog"] = "hog"
    module: ClassVar[str] = "hog"
    is_network: ClassVar[bool] = False
    reference: ClassVar[str] = "Noroozi et al. 2018 (CC+HOG); protocols 1.11"
    is_trainable: ClassVar[bool] = False
    num_descriptors: int = Field(1_000_000, ge=1, description="Descriptors that the vocabulary is learned from.")
    max_iter: int = Field(20, ge=1)


class Snapshot(TaskOptions):
    """A copy of a pretext's backbone from before its end; made by itself for each of its `snapshots`."""

    name: Literal["snapshot"] = "snapshot"
    module: ClassVar[str] = "snapshot"
    reference: ClassVar[str] = "Doersch & Zisserman 2017, figure 3; protocols 1.9"
    is_trainable: ClassVar[bool] = False
    needs_data: ClassVar[bool] = False
    source: str = Field(description="Name of the pretext.")
    step: int = Field(ge=1, description="After how many of its steps.")


class Imported(TaskOptions):
    """A state dict from elsewhere; prefixes are found, every tensor must match."""

    name: Literal["imported"] = "imported"
    module: ClassVar[str] = "imported"
    exports_fc: ClassVar[bool] = True
    reference: ClassVar[str] = "any file of weights; protocols 2.6 and 6"
    is_trainable: ClassVar[bool] = False
    needs_data: ClassVar[bool] = False
    file: Path = Field(description="A .pth/.pt file (read with weights_only) or .safetensors.")
    prefix: str | None = Field(None, description="What the tensors' names begin with, where several sets fit.")
    allow_missing: tuple[str, ...] = Field(
        (), description="Patterns of tensors that the file may lack; they stay random."
    )
    normalize: Literal["imagenet", "half", "none", "per-image", "per-channel", "caffe", "lab-lightness"] | None = Field(
        None, description="Of images; null: as the file says if it is one of ours, else imagenet."
    )
