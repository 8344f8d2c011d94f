"""The part of a backbone below the head of a pretext task."""

import torch
from torch import Tensor, nn

from ssltransfer.models.backbone import Backbone, LayerError, initialize


def last_map(backbone: Backbone, side: int, what: str) -> tuple[str, tuple[int, int, int]]:
    """The backbone's last spatial layer, and its channels, height and width for square inputs of `side` pixels.

    `what` is the name of the inputs in errors.

    Raises:
        LayerError: the inputs are too small for the backbone.
    """
    layer = backbone.options.spatial_layers[-1]
    channels, rows, columns = _shape(backbone, layer, side, what)
    return layer, (channels, rows, columns)


def _shape(backbone: Backbone, layer: str, side: int, what: str) -> tuple[int, ...]:
    options = backbone.options
    try:
        return backbone.shapes(side)[layer]
    except RuntimeError:
        or_another = (
            f"; or its fc6 expects another size: set img_size: {side} of the backbone."
            if "fc6" in options.flat_layers
            else "."
        )
        raise LayerError(
            f"{what} of {side} pixels are too small for {options.name}: increase their size, "
            f"or reduce the stride of the first convolution (stem_stride: 1){or_another}"
        ) from None


class PooledBackbone(nn.Module):
    """Last convolution, pooled 3/2 rounding up (VGG: 2/2), flattened: pool5 of the papers' heads.

    CaffeNet's 6x6 on 64-pixel tiles become 3x3, its 13x13 on 227 pixels 6x6. A map smaller than the window is not
    pooled, nor is the last map of a residual network. If the backbone ends with a learned vector (`representation`, fc7
    of vgg19-bn), that vector is used.

    Args:
        side: of the square inputs, in pixels.
        what: name of the inputs in errors.

    Attributes:
        features: length of the vector for each input.

    Raises:
        LayerError: the inputs are too small for the backbone.
    """

    def __init__(self, backbone: Backbone, side: int, what: str):
        super().__init__()
        self.backbone = backbone
        options = backbone.options
        self.layer = (
            options.spatial_layers[-1] if options.embedding_layer in (None, "pool") else options.base_layers[-1]
        )
        channels, *sides = _shape(backbone, self.layer, side, what)
        pools = options.pool5_kernel and sides and sides[0] >= options.pool5_kernel
        self.pool = nn.MaxPool2d(options.pool5_kernel, 2, ceil_mode=True) if pools else nn.Identity()
        self.features = channels * (int(self.pool(torch.zeros(1, 1, *sides)).shape[-1]) ** 2 if sides else 1)

    def forward(self, x: Tensor) -> Tensor:
        """float (N, 3, side, side) -> (N, features)."""
        pooled: Tensor = self.pool(self.backbone(x, [self.layer])[self.layer])
        return pooled.flatten(1)


class PatchEmbed(nn.Module):
    """A linear layer on the pre-logits, as Kolesnikov et al. 2019 use the 1000 logits of a network.

    For backbones that do not end in a vector it is on pool5. `side` and `what` are as for `PooledBackbone`, `size` is
    the dimension of the embedding, and `seed` belongs to the layer's weights.

    Raises:
        LayerError: the inputs are too small for the backbone.
    """

    def __init__(self, backbone: Backbone, side: int, what: str, size: int, *, seed: int):
        super().__init__()
        self.backbone = backbone
        # The layers after the global average, if there are any, are vectors too.
        self.layer = backbone.layers[-1] if "pool" in backbone.layers else None
        self.pool5 = None if self.layer else PooledBackbone(backbone, side, what)
        features = self.pool5.features if self.pool5 else backbone.shapes(side)[self.layer or ""][0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.linear = nn.Linear(features, size)
            initialize(self.linear)

    def forward(self, x: Tensor) -> Tensor:
        """float (N, 3, side, side) -> (N, size)."""
        vector = self.pool5(x) if self.pool5 else self.backbone(x, [self.layer])[self.layer]
        embedded: Tensor = self.linear(vector)
        return embedded
