"""Up-projections: residual blocks that double the side of a map (Laina et al. 2016; protocols 4.7)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UnpooledConvolution(nn.Conv2d):
    """A 5x5 convolution of an unpooled map, which has each value in the upper left of 2x2 pixels and zeros elsewhere.

    Three quarters of the products would be with zeros. The entries of the kernel that meet a value depend only on
    whether row and column of the output are even or odd. So four smaller convolutions (3x3, 3x2, 2x3 and 2x2) of the
    map itself, interleaved, give the same result (Laina et al. 2016, section 3.2 and released code).
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 5, padding=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """float (B, inputs, H, W) -> (B, outputs, 2H, 2W)."""
        parts = [[self._part(x, row, column) for column in (0, 1)] for row in (0, 1)]
        rows = [torch.stack(both, dim=-1).flatten(-2) for both in parts]
        return torch.stack(rows, dim=-2).flatten(-3, -2)

    def _part(self, x: Tensor, row: int, column: int) -> Tensor:
        """The output's even (0) or odd (1) rows and columns: (B, outputs, H, W)."""
        # An even position reads the values before, at and after it; an odd one those before and after.
        padding = [side for odd in (column, row) for side in (1 - odd, 1)]
        return F.conv2d(F.pad(x, padding), self.weight[..., row::2, column::2])


class UpProjection(nn.Module):
    """Doubles the sides: unpooling, 5x5 and 3x3 convolution, plus a 5x5 convolution of the same unpooled map."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.branch = nn.Sequential(
            UnpooledConvolution(inputs, outputs),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(UnpooledConvolution(inputs, outputs), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """float (B, inputs, H, W) -> (B, outputs, 2H, 2W), not negative."""
        return F.relu(self.branch(x) + self.shortcut(x))
