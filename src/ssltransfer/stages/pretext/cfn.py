"""The context-free network of the jigsaw papers: a trunk shared by nine tiles, and a head that sees them together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssltransfer.config.tasks import Tiles
from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.models.build import build_tile_trunk
from ssltransfer.models.trunk import LayerError, initialise


class ContextFreeNetwork(nn.Module):
    """Tiles -> permutation.

    Noroozi & Favaro 2016, section 3; released train_val_cfn_jps++.prototxt: fc6 shared by the tiles (1024), their
    concatenation into fc7 (4096), fc8. The last convolution is pooled 3/2, rounding up (6x6 -> 3x3 on 64-px tiles).
    """

    def __init__(self, options: TrunkOptions, cut: Tiles, *, permutations: int, hidden: int, dropout: float, seed: int):
        super().__init__()
        self.trunk = build_tile_trunk(options, seed=seed, stem_stride=cut.stem_stride)
        self.layer = [name for name in self.trunk.layers if name != "pool"][-1]
        try:
            channels, side = self.trunk.shapes(cut.tile)[self.layer][:2]
        except RuntimeError:
            raise LayerError(
                f"Tiles of {cut.tile} pixels vanish on the way through {options.name}: "
                "cut larger tiles, or set tiles.stem_stride: 1."
            ) from None
        # VGG has its pooling after conv5 with side 2; a residual network has none.
        window = 2 if options.name == "vgg16" else 3
        self.pool = nn.MaxPool2d(window, 2, ceil_mode=True) if side >= window else nn.Identity()
        pooled = self.pool(torch.zeros(1, 1, side, side)).shape[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.fc6 = nn.Sequential(
                nn.Flatten(), nn.Linear(channels * pooled**2, hidden // 4), nn.ReLU(inplace=True), nn.Dropout(dropout)
            )
            self.fc7 = nn.Sequential(nn.Linear(9 * (hidden // 4), hidden), nn.ReLU(inplace=True), nn.Dropout(dropout))
            self.fc8 = nn.Linear(hidden, permutations)
            for part in (self.fc6, self.fc7, self.fc8):
                initialise(part)

    def forward(self, tiles: Tensor) -> Tensor:
        """float (B, 9, 3, t, t) -> logits (B, permutations)."""
        each = self.pool(self.trunk(tiles.flatten(0, 1), [self.layer])[self.layer])
        return self.fc8(self.fc7(self.fc6(each).reshape(len(tiles), -1)))
