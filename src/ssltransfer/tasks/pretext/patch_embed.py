"""Embedding of an input: the logits layer of Kolesnikov et al. 2019."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssltransfer.models.backbone import Backbone, initialize
from ssltransfer.tasks.pretext.pooled_backbone import PooledBackbone


class PatchEmbed(nn.Module):
    """A linear layer on the pre-logits, as Kolesnikov et al. 2019 use the 1000 logits of a network.

    For backbones that do not end in a vector it is on pool5.

    Args:
        backbone: is called on the inputs.
        side: of the square inputs, in pixels.
        what: name of the inputs in errors.
        size: dimension of the embedding.
        seed: of the layer's weights.

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
