"""MobileNets."""

from typing import ClassVar, Literal

from ssltransfer.config.backbones.base import BackboneOptions
from ssltransfer.config.backbones.resnets import BLOCKS


class MobileNetV2(BackboneOptions):
    """torchvision's MobileNetV2 (CompRess's small student)."""

    name: Literal["mobilenet-v2"] = "mobilenet-v2"
    reference: ClassVar[str] = "Sandler et al. 2018; torchvision.models.mobilenet_v2; protocols 2.7"
    base_layers: ClassVar[tuple[str, ...]] = (*BLOCKS, "conv18", "pool")
    flat_layers: ClassVar[tuple[str, ...]] = ("pool",)
    patch_overrides: ClassVar[dict[str, int]] = {"stem_stride": 1}
    always_bn: ClassVar[bool] = True
