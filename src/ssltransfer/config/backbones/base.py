"""What may be said of every backbone, and what other stages may ask of its options without building it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from ssltransfer.config.base import Options

_SHORT: dict[str, str | dict[bool, str]] = {
    **{
        "model": "{}",
        "width_mult": "w{}",
        "img_size": "{}px",
        "stem_stride": "s{}",
        "bn": "bn{:d}",
        "vocabulary_size": "{}words",
    },
    **{"hog_cell": "cell{}", "output_stride": "os{}", "block4": {True: "block4", False: "no-block4"}},
    **{"block4_stride": "b{}", "last_relu": {False: "no-last-relu"}, "embed_dim": "{}d"},
    **{"norm_momentum": "m{}", "grad_checkpointing": {True: "grad-checkpointing"}, "sobel": {True: "sobel"}},
}


class BackboneOptions(Options):
    """What all backbones share.

    `img_size` is the side of the square input in pixels; images are resized to short side `short_side` before the
    crop, in the published proportion. `stem_stride` replaces the first convolution's stride, for small images.

    Attributes:
        base_layers: names of the layers that a network without a classifier always has, in order.
        top_layers: those that may be left off, after them.
        flat_layers: those of `base_layers` that are vectors, not maps.
        patch_overrides: options that a network for small tiles has in their place; its tensors are the same.
        pool5_kernel: kernel of the stride-2 pooling between the last map and a head; 0: no pooling.
        is_feed_forward: each layer is one with weights, in a row, so that each has a scale of its own.
        can_fuse_bn: each batch norm comes right after the convolution or fully-connected layer that it normalizes.
        supports_layerwise_forward: a layer can be computed from the one before.
        dropout_before_classifier: as the published network has it.
        caffe_padding: an AlexNet, whose map Fast R-CNN aligns with the image by more padding.
    """

    width_mult: float = Field(1.0, gt=0, le=16, description="Multiplies every layer's channels.")
    img_size: int = Field(224, ge=16, le=2048, description="Side of the input in pixels.")
    stem_stride: int | None = Field(None, ge=1, le=8, description="Stride of the first convolution.")
    base_layers: ClassVar[tuple[str, ...]] = ()
    top_layers: ClassVar[tuple[str, ...]] = ()
    flat_layers: ClassVar[tuple[str, ...]] = ()
    patch_overrides: ClassVar[Mapping[str, int]] = {}
    pool5_kernel: ClassVar[int] = 0
    is_feed_forward: ClassVar[bool] = False
    can_fuse_bn: ClassVar[bool] = True
    supports_layerwise_forward: ClassVar[bool] = True
    dropout_before_classifier: ClassVar[bool] = False
    caffe_padding: ClassVar[bool] = False

    @property
    def short_side(self) -> int:
        """Short side in pixels before the crop: 256 for inputs of 224 and 227."""
        return round(self.img_size * 8 / 7)

    @property
    def layers(self) -> tuple[str, ...]:
        """Named layers, in order."""
        return (*self.base_layers, *self.top_layers)

    @property
    def spatial_layers(self) -> tuple[str, ...]:
        """Layers that are maps, in order; the last one is what heads read that want places."""
        return tuple(name for name in self.base_layers if name not in self.flat_layers)

    @property
    def embedding_layer(self) -> str | None:
        """The vector with which a network ends that always has one (its logits would be linear in it), or None."""
        last = self.base_layers[-1]
        return last if last in self.flat_layers else None

    @property
    def has_batch_norm(self) -> bool:
        """Whether it has batch norms that could be folded into its weights."""
        return False

    @property
    def supports_data_init(self) -> bool:
        """Whether each layer has a scale of its own: no shortcuts and no batch norms."""
        return self.is_feed_forward and not self.has_batch_norm

    @property
    def slug(self) -> str:
        """A short name for baselines: the backbone's name and what differs from its defaults (caffenet-w0.25-64px)."""
        differing = self.model_dump(exclude_defaults=True)
        return "-".join([self.name, *(_said(key, differing[key]) for key in _SHORT if key in differing)])


def _said(key: str, value: Any) -> str:
    short = _SHORT[key]
    return short.format(value) if isinstance(short, str) else short[value]
