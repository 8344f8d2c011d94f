"""Pre-activation residual networks: ResNets v2, and the base of RevNet's options."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.backbones.base import BatchNormOptions
from ssltransfer.config.backbones.resnets import BLOCKS, PATCH_STRIDES, FourBlocks


class PreActResNet(FourBlocks):
    """Options of pre-activation networks."""

    can_fuse_bn = False
    last_relu: bool = Field(True, description="ReLU after the last norm, before the average; false: the papers' (-).")

    @property
    def own_layers(self) -> tuple[str, ...]:  # type: ignore[override]
        """conv1, the blocks and pool."""
        return (*(BLOCKS if getattr(self, "block4", True) else BLOCKS[:4]), "pool")


class ResNetV2(PreActResNet):
    """Options of ResNets v2."""

    supports_layer_mix = True
    output_stride: Literal[8, 16] = Field(
        8, description="Stride of block3's map; 8: block3 is dilated. Both have the same weights."
    )
    shortcuts: bool = Field(True, description="false: no residual connections, only the branches of the units.")
    block4: bool = Field(False, description="Include block4, which halves the map; else the network ends with block3.")

    @model_validator(mode="after")
    def _has_block4(self) -> Self:
        if not self.block4 and self.block4_stride != 2:
            raise ValueError("block4_stride belongs to block4; set `block4: true` or remove it")
        return self


class ResNet50V2(ResNetV2, BatchNormOptions):
    """ResNet-50 v2 (pre-activation), width k / 4 for Kolesnikov's widening factor k."""

    name: Literal["resnet50-v2"] = "resnet50-v2"
    reference = "He et al. 2016, identity mappings; Kolesnikov et al. 2019; protocols 2.3b"
    depths = (3, 4, 6, 3)
    patch_overrides = PATCH_STRIDES
    output_stride: Literal[8, 16] = Field(16, description="Stride of block3's map; 8: block3 is dilated.")
    block4: bool = Field(True, description="Include block4; else the network ends with block3.")


class ResNet101V2(ResNetV2):
    """ResNet-101 v2 (pre-activation) up to the end of block3, at output stride 8 or 16."""

    name: Literal["resnet101-v2"] = "resnet101-v2"
    reference = "He et al. 2016, identity mappings; Doersch & Zisserman 2017; protocols 2.5"
    depths = (3, 4, 23, 3)
