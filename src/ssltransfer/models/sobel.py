"""The input of DeepCluster's networks: gradients instead of colors."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Sobel(nn.Module):
    """float (B, 3, H, W) -> (B, 2, H, W): gradients of the mean of the channels, to the right and downwards.

    Caron et al. 2018, facebookresearch/deepcluster; protocols 2.1d. Not part of a state dict: nothing is learned.
    """

    kernels: Tensor

    def __init__(self) -> None:
        super().__init__()
        across = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        self.register_buffer("kernels", torch.stack([across, across.T])[:, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.conv2d(x.mean(1, keepdim=True), self.kernels.to(x.dtype), padding=1)
