"""Trunks: which networks there are, and what may be said of them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ssltransfer.config.base import Options, name_alone

_SHORT = {
    **{"width": "w{}", "size": "{}px", "stem_stride": "s{}", "bn": "bn{:d}", "words": "{}words", "cell": "cell{}"},
    **{"output_stride": "os{}", "block4": "block4"},
}


class TrunkOptions(Options):
    """What all trunks share.

    `size` is the side of the square input in pixels; pictures are resized to short side `short_side` before the
    crop, in the published proportion. `stem_stride` replaces the first convolution's stride, for small pictures.
    """

    width: float = Field(1.0, gt=0, le=16, description="Multiplies every layer's channels.")
    size: int = Field(224, ge=16, le=2048, description="Side of the input in pixels.")
    stem_stride: int | None = Field(None, ge=1, le=8, description="Stride of the first convolution.")
    convolutions: ClassVar[tuple[str, ...]] = ()
    fully_connected: ClassVar[tuple[str, ...]] = ()
    tile_stem_stride: ClassVar[int | None] = None

    @property
    def short_side(self) -> int:
        """Short side in pixels before the crop: 256 for inputs of 224 and 227."""
        return round(self.size * 8 / 7)

    @property
    def layers(self) -> tuple[str, ...]:
        """Named layers, in order."""
        return (*self.convolutions, *self.fully_connected)

    @property
    def slug(self) -> str:
        """A short name for controls: the trunk's name and what differs from its defaults (caffenet-w0.25-64px)."""
        differing = self.model_dump(exclude_defaults=True)
        return "-".join(
            [self.name, *(short.format(differing[key]) for key, short in _SHORT.items() if key in differing)]
        )


class CaffeNet(TrunkOptions):
    """CaffeNet: AlexNet with groups, LRN after pooling, ceil-mode pooling (Noroozi's AlexNet)."""

    name: Literal["caffenet"] = "caffenet"
    source: ClassVar[str] = "Jia et al. 2014, bvlc_reference_caffenet; Noroozi et al. 2018"
    size: int = Field(227, ge=16, le=2048)
    bn: bool = Field(False, description="Batch normalisation instead of LRN: not the papers', but learns in minutes.")
    convolutions: ClassVar[tuple[str, ...]] = ("conv1", "conv2", "conv3", "conv4", "conv5")
    fully_connected: ClassVar[tuple[str, ...]] = ("fc6", "fc7")
    tile_stem_stride: ClassVar[int | None] = 2

    @property
    def short_side(self) -> int:
        """256 at 227."""
        return round(self.size * 256 / 227)


class AlexNet(TrunkOptions):
    """torchvision's AlexNet: no groups, no LRN (CompRess's AlexNet)."""

    name: Literal["alexnet"] = "alexnet"
    source: ClassVar[str] = "Krizhevsky 2014; torchvision.models.alexnet"
    convolutions: ClassVar[tuple[str, ...]] = ("conv1", "conv2", "conv3", "conv4", "conv5")
    fully_connected: ClassVar[tuple[str, ...]] = ("fc6", "fc7")
    tile_stem_stride: ClassVar[int | None] = 2


class Vgg16(TrunkOptions):
    """VGG16, with or without batch normalisation."""

    name: Literal["vgg16"] = "vgg16"
    source: ClassVar[str] = "Simonyan & Zisserman 2015; torchvision.models.vgg16(_bn)"
    bn: bool = True
    convolutions: ClassVar[tuple[str, ...]] = (
        *("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3"),
        *("conv4_1", "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3"),
    )
    fully_connected: ClassVar[tuple[str, ...]] = ("fc6", "fc7")


class ResNet18(TrunkOptions):
    """torchvision's ResNet-18."""

    name: Literal["resnet18"] = "resnet18"
    source: ClassVar[str] = "He et al. 2016; torchvision.models.resnet18"
    convolutions: ClassVar[tuple[str, ...]] = ("conv1", "block1", "block2", "block3", "block4", "pool")
    tile_stem_stride: ClassVar[int | None] = 1


class ResNet50(TrunkOptions):
    """torchvision's ResNet-50 (v1, stride in the 3x3 convolution)."""

    name: Literal["resnet50"] = "resnet50"
    source: ClassVar[str] = "He et al. 2016; torchvision.models.resnet50"
    convolutions: ClassVar[tuple[str, ...]] = ("conv1", "block1", "block2", "block3", "block4", "pool")
    tile_stem_stride: ClassVar[int | None] = 1


class ResNetV2(TrunkOptions):
    """What residual networks of the second form share."""

    output_stride: Literal[8, 16] = Field(
        8, description="Input pixels a pixel of block3; 8: block3 is dilated. The weights are those of either."
    )
    block4: bool = Field(False, description="Go on to block4, which halves the map; else the network ends with block3.")
    depths: ClassVar[tuple[int, int, int, int]]

    @property
    def convolutions(self) -> tuple[str, ...]:  # type: ignore[override]
        """Named layers without fully-connected ones, of which there are none."""
        return ("conv1", "block1", "block2", "block3", *(("block4",) if self.block4 else ()), "pool")


class ResNet101V2(ResNetV2):
    """ResNet-101 v2 (pre-activation) up to the end of block3, at output stride 8 or 16."""

    name: Literal["resnet101-v2"] = "resnet101-v2"
    source: ClassVar[str] = "He et al. 2016, identity mappings; Doersch & Zisserman 2017; protocols 2.5"
    depths: ClassVar[tuple[int, int, int, int]] = (3, 4, 23, 3)


class HogWords(TrunkOptions):
    """Bag of words of HOG descriptors: no network, but a model like any other to what follows."""

    name: Literal["hog-words"] = "hog-words"
    source: ClassVar[str] = "Dalal & Triggs 2005; Noroozi et al. 2018 (CC+HOG)"
    size: int = Field(256, ge=32, le=2048)
    words: int = Field(4096, ge=2)
    cell: int = Field(8, ge=2, description="Side of a HOG cell in pixels.")
    convolutions: ClassVar[tuple[str, ...]] = ("words",)

    @property
    def short_side(self) -> int:
        """The crop is the whole short side."""
        return self.size


def can_be_rescaled(trunk: TrunkOptions) -> bool:
    """Whether a layer's scale is its own: in networks without shortcuts and without batch norms."""
    return bool(trunk.fully_connected) and not getattr(trunk, "bn", False)


TRUNKS: tuple[type[TrunkOptions], ...] = (CaffeNet, AlexNet, Vgg16, ResNet18, ResNet50, ResNet101V2, HogWords)
AnyTrunk = Annotated[
    CaffeNet | AlexNet | Vgg16 | ResNet18 | ResNet50 | ResNet101V2 | HogWords,
    Field(discriminator="name"),
    BeforeValidator(name_alone),
]
