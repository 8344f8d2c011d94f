"""torchvision's residual networks, and the common options of networks of four blocks."""

from typing import ClassVar, Literal

from pydantic import Field

from ssltransfer.config.backbones.base import EmbeddingOptions

BLOCKS = ("conv1", "block1", "block2", "block3", "block4")
# Kolesnikov et al. 2019: on patches the stem has no stride, and the strides of the blocks are 1, 2, 2, 1.
PATCH_STRIDES = {"stem_stride": 1, "block4_stride": 1}


class FourBlocks(EmbeddingOptions):
    """Options of residual networks of four blocks.

    Attributes:
        depths: units of each block.
    """

    depths: ClassVar[tuple[int, int, int, int]]
    flat_layers = ("pool", "representation")
    always_bn = True
    block4_stride: Literal[1, 2] = Field(2, description="Stride of block4; 1, with stem_stride 1, for patches of 64.")


class ResNet(FourBlocks):
    """Options of torchvision's ResNets."""

    own_layers = (*BLOCKS, "pool")
    patch_overrides = PATCH_STRIDES
    bottleneck: ClassVar[bool] = True


class ResNet18(ResNet):
    """torchvision's ResNet-18."""

    name: Literal["resnet18"] = "resnet18"
    reference = "He et al. 2016; torchvision.models.resnet18"
    depths = (2, 2, 2, 2)
    bottleneck = False


class ResNet50(ResNet):
    """torchvision's ResNet-50 (v1, stride in the 3x3 convolution)."""

    name: Literal["resnet50"] = "resnet50"
    reference = "He et al. 2016; torchvision.models.resnet50"
    depths = (3, 4, 6, 3)
