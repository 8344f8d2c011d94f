"""Options of all backbones, and the properties that other stages read without building the network."""

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field

from ssltransfer.config.base import Options
from ssltransfer.digests import bytes_digest

# Short parts of a baseline's name for options that differ from their defaults, in this order; other options follow by
# their names. Flags without {}: X or no-X.
_SLUG_PARTS = {
    "model": "{}",
    "return_nodes": "{}",
    "width_mult": "w{}",
    "img_size": "{}px",
    "stem_stride": "s{}",
    "bn": "bn{:d}",
    "vocabulary_size": "{}words",
    "hog_cell": "cell{}",
    "output_stride": "os{}",
    "block4": "block4",
    "block4_stride": "b{}",
    "last_relu": "last-relu",
    "shortcuts": "shortcuts",
    "embed_dim": "{}d",
    "norm_momentum": "m{}",
    "grad_checkpointing": "grad-checkpointing",
    "sobel": "sobel",
}


class BackboneOptions(Options):
    """Options of all backbones.

    Attributes:
        base_layers: names of the layers that the network always has, in order.
        top_layers: names of the layers after them that it has with `include_top`: fc6 and fc7.
        flat_layers: names of the `base_layers` whose features are vectors (B, C) instead of maps (B, C, H, W).
        patch_overrides: options for networks on small tiles; their weights have the same shapes.
        crop_pct: side of the center crop divided by the short side of the resized image, as in timm.
        pool5_kernel: kernel of the stride-2 pooling between the last map and a head; 0: no pooling.
        is_network: has weights that can be trained.
        is_feed_forward: every layer has exactly one module with weights, without shortcuts.
        always_bn: has batch norms, without an option `bn`.
        can_fuse_bn: each batch norm directly follows the convolution or linear layer that it normalizes.
        supports_layerwise_forward: each layer is a function of the layer before.
        supports_layer_mix: block3 can be a learned mix of its units (`ssltransfer.models.layer_mix`).
        dropout_before_classifier: the published network has dropout there.
        free_options: options that change neither weights nor features, so that other weights may be read with them.
        caffe_padding: Fast R-CNN pads the input so that the map is aligned with the image (AlexNets).
    """

    width_mult: float = Field(1.0, gt=0, le=16, description="Multiplies every layer's channels.")
    img_size: int = Field(224, ge=16, le=2048, description="Side of the square input in pixels.")
    stem_stride: int | None = Field(None, ge=1, le=8, description="Stride of the first convolution, for small images.")
    base_layers: ClassVar[tuple[str, ...]] = ()
    top_layers: ClassVar[tuple[str, ...]] = ()
    flat_layers: ClassVar[tuple[str, ...]] = ()
    patch_overrides: ClassVar[Mapping[str, int]] = {}
    crop_pct: ClassVar[float] = 224 / 256
    pool5_kernel: ClassVar[int] = 0
    is_network: ClassVar[bool] = True
    is_feed_forward: ClassVar[bool] = False
    always_bn: ClassVar[bool] = False
    can_fuse_bn: ClassVar[bool] = True
    supports_layerwise_forward: ClassVar[bool] = True
    supports_layer_mix: ClassVar[bool] = False
    dropout_before_classifier: ClassVar[bool] = False
    free_options: ClassVar[frozenset[str]] = frozenset({"return_nodes", "norm_momentum", "grad_checkpointing"})
    caffe_padding: ClassVar[bool] = False

    @property
    def short_side(self) -> int:
        """Short side in pixels of the resized image before the center crop: 256 for inputs of 224."""
        return round(self.img_size / self.crop_pct)

    @property
    def layers(self) -> tuple[str, ...]:
        """All layer names, in order."""
        return (*self.base_layers, *self.top_layers)

    @property
    def spatial_layers(self) -> tuple[str, ...]:
        """Names of the layers whose features are maps, in order."""
        return tuple(name for name in self.base_layers if name not in self.flat_layers)

    @property
    def embedding_layer(self) -> str | None:
        """The last of `base_layers` if it is a vector (the logits are linear in it), or None."""
        last = self.base_layers[-1]
        return last if last in self.flat_layers else None

    def accepts(self, size: int, layer: str) -> bool:
        """Whether a square input of `size` pixels is large enough for this layer."""
        return True  # with padding the smallest map is one pixel

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network has batch norms."""
        return bool(getattr(self, "bn", self.always_bn))

    @property
    def supports_data_init(self) -> bool:
        """Whether each layer has a scale of its own: no shortcuts and no batch norms."""
        return self.is_feed_forward and not self.has_batch_norm

    def with_stem_stride(self, stride: int | None) -> Self:
        """A copy with this stride of the first convolution; None: unchanged."""
        return self.model_copy(update={"stem_stride": stride}) if stride else self

    def for_tiles(self, stem_stride: int | None) -> Self:
        """The options for small tiles: `patch_overrides`, and `stem_stride` instead of the published one if given."""
        return self.model_copy(update=self.patch_overrides).with_stem_stride(stem_stride)

    @property
    def slug(self) -> str:
        """A short name for baselines: the backbone's name and all options but defaults (caffenet-w0.25-64px)."""
        differing = self.model_dump(mode="json", exclude_defaults=True)
        keys = [*_SLUG_PARTS, *(key for key in type(self).model_fields if key not in _SLUG_PARTS and key != "name")]
        return "-".join([self.name, *(_slug_part(key, differing[key]) for key in keys if key in differing)])


class EmbeddingOptions(BackboneOptions):
    """Networks that end with a vector, and may add an embedding of any size to it.

    Attributes:
        own_layers: names of the layers before it, in order.
    """

    embed_dim: int | None = Field(
        None, ge=1, description="Size of a linear layer after the last one, `representation`; null: no such layer."
    )
    own_layers: ClassVar[tuple[str, ...]] = ()

    @property
    def base_layers(self) -> tuple[str, ...]:  # type: ignore[override]
        """`own_layers` and, with `embed_dim`, representation."""
        return (*self.own_layers, "representation") if self.embed_dim else self.own_layers


class BatchNormOptions(BackboneOptions):
    """Networks published in TensorFlow: batch norms with eps 1e-3 and slow running statistics."""

    norm_momentum: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Weight of a batch in running statistics (TensorFlow's .99); use more for short runs.",
    )
    always_bn: ClassVar[bool] = True


def _slug_part(key: str, value: Any) -> str:
    flag = isinstance(value, bool)
    part = _SLUG_PARTS.get(key, key.replace("_", "-") + ("" if flag else "-{}"))
    return f"no-{part}" if value is False and "{" not in part else part.format(value if flag else _slug_value(value))


def _slug_value(value: Any) -> str:
    """As text that may occur in a name; the digest of other values."""
    text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
    return (
        text
        if re.fullmatch(r"[A-Za-z0-9._+-]+", text)
        else bytes_digest(json.dumps(value, sort_keys=True).encode())[:8]
    )
