"""Local response normalization as a convolution."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LocalResponseNorm(nn.Module):
    """float (B, C, H, W) -> the same shape and dtype: x / (1 + 1e-4 / 5 x the sum of x^2 over 5 channels)^0.75.

    Krizhevsky et al. 2012, section 3.3, with the constants of bvlc_reference_caffenet. torch's own module averages over
    channels by a 3-D pooling of a padded copy, which is slower. Computed in float32 or more. Nothing is learned or part
    of a state dict.

    Args:
        channels: of the maps.
    """

    band: Tensor

    def __init__(self, channels: int):
        super().__init__()
        channel = torch.arange(channels)
        near = (channel[:, None] - channel).abs() <= 2
        self.register_buffer("band", (1e-4 / 5 * near.float())[:, :, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        with torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False):  # there is none for the meta device
            values = x.to(torch.promote_types(x.dtype, torch.float32))
            scale = 1 + F.conv2d(values.square(), self.band.to(values.dtype))
            return (values * (scale * scale.sqrt()).rsqrt()).to(x.dtype)
