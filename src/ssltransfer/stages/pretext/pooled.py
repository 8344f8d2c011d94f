"""The convolutions of a trunk as far as a head reads them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssltransfer.models.trunk import LayerError, Trunk


def last_map(trunk: Trunk, side: int, what: str) -> tuple[str, tuple[int, int, int]]:
    """The trunk's last layer that is no pool, and its channels, height and width for one input.

    Args:
        trunk: whose convolutions are read.
        side: of the square inputs, in pixels.
        what: the inputs' name for the error message.

    Raises:
        LayerError: inputs of this side vanish on the way.
    """
    layer = [name for name in trunk.layers if name != "pool"][-1]
    try:
        channels, rows, columns = trunk.shapes(side)[layer]
    except RuntimeError:
        raise LayerError(
            f"{what} of {side} pixels vanish on the way through {trunk.options.name}: make them larger, "
            "or the stride of the first convolution smaller (stem_stride: 1)."
        ) from None
    return layer, (channels, rows, columns)


class Pooled(nn.Module):
    """Last convolution, pooled 3/2 rounding up (VGG: 2/2), flattened: pool5 of the papers' heads.

    CaffeNet's 6x6 on 64-pixel tiles become 3x3, its 13x13 on 227 pixels 6x6. Where the map is smaller than the window,
    nothing is pooled. A residual network has no pooling here: its last map is read as it is.

    Args:
        trunk: whose convolutions are read.
        side: of the square inputs, in pixels.
        what: the inputs' name for the error message.

    Attributes:
        features: length of the vector for each input.

    Raises:
        LayerError: inputs of this side vanish on the way.
    """

    def __init__(self, trunk: Trunk, side: int, what: str):
        super().__init__()
        self.trunk = trunk
        self.layer, (channels, rows, _) = last_map(trunk, side, what)
        window = 2 if trunk.options.name == "vgg16" else 3
        pools = rows >= window and not trunk.options.name.startswith("resnet")
        self.pool = nn.MaxPool2d(window, 2, ceil_mode=True) if pools else nn.Identity()
        self.features = channels * int(self.pool(torch.zeros(1, 1, rows, rows)).shape[-1]) ** 2

    def forward(self, x: Tensor) -> Tensor:
        """float (N, 3, side, side) -> (N, features)."""
        pooled: Tensor = self.pool(self.trunk(x, [self.layer])[self.layer])
        return pooled.flatten(1)
