"""What may be said of every backbone, and what other stages may ask of its options without building it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from ssltransfer.config.base import Options

_SHORT: dict[str, str | dict[bool, str]] = {
    **{"model": "{}", "width": "w{}", "size": "{}px", "stem_stride": "s{}", "bn": "bn{:d}", "words": "{}words"},
    **{"cell": "cell{}", "output_stride": "os{}", "block4": {True: "block4", False: "no-block4"}},
    **{"block4_stride": "b{}", "last_relu": {False: "no-last-relu"}, "representation": "{}d"},
    **{"norm_momentum": "m{}", "recompute": {True: "recompute"}, "sobel": {True: "sobel"}},
}


class BackboneOptions(Options):
    """What all backbones share.

    `size` is the side of the square input in pixels; images are resized to short side `short_side` before the
    crop, in the published proportion. `stem_stride` replaces the first convolution's stride, for small images.

    Attributes:
        convolutions: names of the layers that a network without a classifier always has, in order.
        fully_connected: those that may be left off, after them.
        vectors: those of `convolutions` that are vectors, not maps.
        tile: options that a network for small tiles has in their place; its tensors are the same.
        pool5: side of the window by which heads pool the last map, at every second place; 0: they read it as it is.
        rescalable: each layer is one with weights, in a row, so that each has a scale of its own.
        foldable: each batch norm comes right after the convolution or fully-connected layer that it normalizes.
        stepwise: a layer can be computed from the one before.
        dropout_before_classifier: as the published network has it.
        padded_by_detectors: an AlexNet, whose map Fast R-CNN aligns with the image by more padding.
    """

    width: float = Field(1.0, gt=0, le=16, description="Multiplies every layer's channels.")
    size: int = Field(224, ge=16, le=2048, description="Side of the input in pixels.")
    stem_stride: int | None = Field(None, ge=1, le=8, description="Stride of the first convolution.")
    convolutions: ClassVar[tuple[str, ...]] = ()
    fully_connected: ClassVar[tuple[str, ...]] = ()
    vectors: ClassVar[tuple[str, ...]] = ()
    tile: ClassVar[Mapping[str, int]] = {}
    pool5: ClassVar[int] = 0
    rescalable: ClassVar[bool] = False
    foldable: ClassVar[bool] = True
    stepwise: ClassVar[bool] = True
    dropout_before_classifier: ClassVar[bool] = False
    padded_by_detectors: ClassVar[bool] = False

    @property
    def short_side(self) -> int:
        """Short side in pixels before the crop: 256 for inputs of 224 and 227."""
        return round(self.size * 8 / 7)

    @property
    def layers(self) -> tuple[str, ...]:
        """Named layers, in order."""
        return (*self.convolutions, *self.fully_connected)

    @property
    def maps(self) -> tuple[str, ...]:
        """Layers that are maps, in order; the last one is what heads read that want places."""
        return tuple(name for name in self.convolutions if name not in self.vectors)

    @property
    def vector(self) -> str | None:
        """The vector with which a network ends that always has one (its logits would be linear in it), or None."""
        last = self.convolutions[-1]
        return last if last in self.vectors else None

    @property
    def normed(self) -> bool:
        """Whether it has batch norms that could be folded into its weights."""
        return False

    @property
    def slug(self) -> str:
        """A short name for controls: the backbone's name and what differs from its defaults (caffenet-w0.25-64px)."""
        differing = self.model_dump(exclude_defaults=True)
        return "-".join([self.name, *(_said(key, differing[key]) for key in _SHORT if key in differing)])


def _said(key: str, value: Any) -> str:
    short = _SHORT[key]
    return short.format(value) if isinstance(short, str) else short[value]


def can_be_rescaled(backbone: BackboneOptions) -> bool:
    """Whether a layer's scale is its own: in networks without shortcuts and without batch norms."""
    return backbone.rescalable and not backbone.normed
