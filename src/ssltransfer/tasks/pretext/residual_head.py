"""Heads of residual units on patches (Doersch & Zisserman 2017, section 3.1; protocols 1.3c)."""

import torch
from torch import Tensor, nn

from ssltransfer.config.tasks import ResidualHead
from ssltransfer.models.backbone import Backbone, initialize
from ssltransfer.models.resnets_v2 import Unit
from ssltransfer.tasks.pretext.pooled_backbone import last_map


class PatchVectors(nn.Module):
    """Patches -> vectors: the backbone's last map, after the ReLU, through two residual units of stride 2, flattened.

    12x12x1024 become 6x6x1024 and 3x3x512, a vector of 4608. The units are of version 2, each with a projection of its
    normalized input. The output is their sum, without a norm.

    Attributes:
        features: length of the vectors.

    Raises:
        LayerError: patches are too small for the backbone.
    """

    def __init__(self, backbone: Backbone, options: ResidualHead, *, patch: int, seed: int):
        super().__init__()
        self.backbone = backbone
        self.layer, (channels, rows, columns) = last_map(backbone, patch, "Patches")
        one, two = options.head_dims
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.units = nn.Sequential(
                Unit(channels, options.bottleneck_dim, stride=2, first=True, out=one),
                nn.BatchNorm2d(one),
                nn.ReLU(inplace=True),
                Unit(one, options.bottleneck_dim, stride=2, first=True, out=two),
            )
            initialize(self.units)
        self.features = two * -(-rows // 4) * -(-columns // 4)

    def forward(self, patches: Tensor) -> Tensor:
        """float (N, 3, patch, patch), normalized -> (N, features)."""
        vectors: Tensor = self.units(self.backbone(patches, [self.layer])[self.layer])
        return vectors.flatten(1)


class ConnectedUnit(nn.Module):
    """A version 2 bottleneck on vectors: its three convolutions are linear layers, with `hidden` units inside."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.branch = nn.Sequential(
            *(nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, hidden, bias=False)),
            *(nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, hidden, bias=False)),
            *(nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, width, bias=False)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """float (N, width) -> (N, width)."""
        total: Tensor = x + self.branch(x)
        return total
