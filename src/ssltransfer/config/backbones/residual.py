"""Residual networks: torchvision's, those of the second form, reversible ones, and MobileNet."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ssltransfer.config.backbones.base import BackboneOptions
from ssltransfer.config.backbones.norms import BatchNormOptions

_BLOCKS = ("conv1", "block1", "block2", "block3", "block4")
# Kolesnikov et al. 2019: on patches the stem has no stride, and the strides of the blocks are 1, 2, 2, 1.
_PATCHES = {"stem_stride": 1, "block4_stride": 1}


class Residual(BackboneOptions):
    """What residual networks of four blocks share."""

    flat_layers: ClassVar[tuple[str, ...]] = ("pool", "representation")
    block4_stride: Literal[1, 2] = Field(2, description="Stride of block4; 1, with stem_stride 1, for patches of 64.")


class ResNet(Residual):
    """What torchvision's share."""

    base_layers: ClassVar[tuple[str, ...]] = (*_BLOCKS, "pool")
    patch_overrides: ClassVar[dict[str, int]] = _PATCHES
    depths: ClassVar[tuple[int, int, int, int]]

    @property
    def has_batch_norm(self) -> bool:
        """Always."""
        return True


class ResNet18(ResNet):
    """torchvision's ResNet-18."""

    name: Literal["resnet18"] = "resnet18"
    reference: ClassVar[str] = "He et al. 2016; torchvision.models.resnet18"
    depths: ClassVar[tuple[int, int, int, int]] = (2, 2, 2, 2)


class ResNet50(ResNet):
    """torchvision's ResNet-50 (v1, stride in the 3x3 convolution)."""

    name: Literal["resnet50"] = "resnet50"
    reference: ClassVar[str] = "He et al. 2016; torchvision.models.resnet50"
    depths: ClassVar[tuple[int, int, int, int]] = (3, 4, 6, 3)


class PreActResNet(Residual):
    """Residual networks that may end with a representation whose size is not tied to the width."""

    can_fuse_bn: ClassVar[bool] = False
    depths: ClassVar[tuple[int, int, int, int]]
    embed_dim: int | None = Field(
        None, ge=1, description="Numbers of a linear layer after the average; null: there is none."
    )

    @property
    def _ends(self) -> tuple[str, ...]:
        return ("pool", *(("representation",) if self.embed_dim else ()))


class ResNetV2(PreActResNet):
    """What residual networks of the second form share."""

    output_stride: Literal[8, 16] = Field(
        8, description="Input pixels a pixel of block3; 8: block3 is dilated. The weights are those of either."
    )
    block4: bool = Field(False, description="Go on to block4, which halves the map; else the network ends with block3.")
    last_relu: bool = Field(True, description="ReLU after the last norm, before the average; the papers' (-): false.")

    @property
    def base_layers(self) -> tuple[str, ...]:  # type: ignore[override]
        """Named layers without fully-connected ones, of which there are none."""
        return (*_BLOCKS[: 5 if self.block4 else 4], *self._ends)


class ResNet50V2(ResNetV2, BatchNormOptions):
    """ResNet-50 v2 (pre-activation), width k / 4 for Kolesnikov's widening factor k."""

    name: Literal["resnet50-v2"] = "resnet50-v2"
    reference: ClassVar[str] = "He et al. 2016, identity mappings; Kolesnikov et al. 2019; protocols 2.3b"
    depths: ClassVar[tuple[int, int, int, int]] = (3, 4, 6, 3)
    patch_overrides: ClassVar[dict[str, int]] = _PATCHES
    output_stride: Literal[8, 16] = Field(16, description="Input pixels a pixel of block3; 8: block3 is dilated.")
    block4: bool = Field(True, description="With block4; else the network ends with block3.")


class ResNet101V2(ResNetV2):
    """ResNet-101 v2 (pre-activation) up to the end of block3, at output stride 8 or 16."""

    name: Literal["resnet101-v2"] = "resnet101-v2"
    reference: ClassVar[str] = "He et al. 2016, identity mappings; Doersch & Zisserman 2017; protocols 2.5"
    depths: ClassVar[tuple[int, int, int, int]] = (3, 4, 23, 3)


class RevNet50(PreActResNet, BatchNormOptions):
    """RevNet-50: a ResNet-50 v2 whose units can be inverted, width k / 4 for Kolesnikov's widening factor k."""

    name: Literal["revnet50"] = "revnet50"
    reference: ClassVar[str] = "Gomez et al. 2017; Kolesnikov et al. 2019; protocols 2.4"
    depths: ClassVar[tuple[int, int, int, int]] = (3, 4, 6, 3)
    patch_overrides: ClassVar[dict[str, int]] = _PATCHES
    last_relu: bool = Field(True, description="ReLU after the last norm, before the average; the papers' (-): false.")
    grad_checkpointing: bool = Field(
        False,
        description="Compute activations again in the backward pass: less memory, a third more time.",
    )

    @property
    def base_layers(self) -> tuple[str, ...]:  # type: ignore[override]
        """Named layers without fully-connected ones, of which there are none."""
        return (*_BLOCKS, *self._ends)


class MobileNetV2(BackboneOptions):
    """torchvision's MobileNetV2 (CompRess's small student)."""

    name: Literal["mobilenet-v2"] = "mobilenet-v2"
    reference: ClassVar[str] = "Sandler et al. 2018; torchvision.models.mobilenet_v2; protocols 2.7"
    base_layers: ClassVar[tuple[str, ...]] = (*_BLOCKS, "conv18", "pool")
    flat_layers: ClassVar[tuple[str, ...]] = ("pool",)
    patch_overrides: ClassVar[dict[str, int]] = {"stem_stride": 1}

    @property
    def has_batch_norm(self) -> bool:
        """Always."""
        return True
