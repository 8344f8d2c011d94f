"""The context-free network of the jigsaw papers: a backbone shared by nine tiles, and a head on all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import Tiles
from ssltransfer.models.backbone import initialize, initialize_last
from ssltransfer.models.build import build_tile_backbone
from ssltransfer.tasks.pretext.pooled_backbone import PooledBackbone


class ContextFreeNetwork(nn.Module):
    """Logits of the permutations of nine tiles.

    Noroozi & Favaro 2016, section 3; released train_val_cfn_jps++.prototxt: fc6 shared by the tiles (2304 -> 1024 for
    CaffeNet, 2048 -> 1024 for VGG16), their concatenation into fc7 (9216 -> 4096), fc8. With `bn` fc6 and fc7 are
    batch-normalized, which no paper does: without it training stays at the chance-level loss for thousands of steps.

    Raises:
        LayerError: tiles are too small for the backbone.
    """

    def __init__(
        self,
        options: BackboneOptions,
        cut: Tiles,
        *,
        permutations: int,
        hidden_dim: int,
        dropout: float,
        seed: int,
        bn: bool = False,
    ):
        super().__init__()
        self.backbone = build_tile_backbone(options, seed=seed, stem_stride=cut.stem_stride)
        self.pool5 = PooledBackbone(self.backbone, cut.tile, "Tiles")
        shared = max(1, hidden_dim // 4)

        def layer(inputs: int, outputs: int) -> nn.Sequential:
            norm = [nn.BatchNorm1d(outputs)] if bn else []
            return nn.Sequential(nn.Linear(inputs, outputs), *norm, nn.ReLU(inplace=True), nn.Dropout(dropout))

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.fc6 = layer(self.pool5.features, shared)
            self.fc7 = layer(9 * shared, hidden_dim)
            self.fc8 = nn.Linear(hidden_dim, permutations)
            for part in (self.fc6, self.fc7):
                initialize(part)
            initialize_last(self.fc8)

    def forward(self, tiles: Tensor) -> Tensor:
        """float (B, 9, 3, t, t) -> logits (B, permutations)."""
        each = self.fc6(self.pool5(tiles.flatten(0, 1)))
        return self.fc8(self.fc7(each.reshape(len(tiles), -1)))
