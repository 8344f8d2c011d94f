"""MobileNets."""

from typing import Literal

from ssltransfer.config.backbones.base import EmbeddingOptions
from ssltransfer.config.backbones.resnets import BLOCKS


class MobileNetV2(EmbeddingOptions):
    """torchvision's MobileNetV2 (CompRess's small student)."""

    name: Literal["mobilenet-v2"] = "mobilenet-v2"
    reference = "Sandler et al. 2018; torchvision.models.mobilenet_v2; protocols 2.7"
    own_layers = (*BLOCKS, "conv18", "pool")
    flat_layers = ("pool", "representation")
    patch_overrides = {"stem_stride": 1}
    always_bn = True
