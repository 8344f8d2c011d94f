"""Jigsaw (Noroozi & Favaro 2016): nine tiles of a picture in one of N orders; which one?"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.config.tasks import Jigsaw
from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.data.batches import Batch
from ssltransfer.data.device_ops import grey_some, standardise
from ssltransfer.data.drawing import mosaic, visible
from ssltransfer.data.draws import Draws
from ssltransfer.data.permutations import max_hamming_set
from ssltransfer.data.tiles import cut_tiles, permute
from ssltransfer.data.transforms import CentreSquare
from ssltransfer.models.normalise import Normalise
from ssltransfer.stages.pretext.base import PretextTask
from ssltransfer.stages.pretext.cfn import ContextFreeNetwork
from ssltransfer.training.task import accuracy


class JigsawTask(PretextTask):
    """Which permutation were the tiles put in?

    Released JigsawPuzzleSolver and its PyTorch port: 255-pixel centre crop of a picture with short side 256, a tile of
    64 anywhere in each cell of 85, each colour channel shifted by itself, 30 % of the pictures grey, each tile and
    channel to zero mean and unit deviation (protocols 1.1).
    """

    rule: Normalise = "per-channel"

    def __init__(self, options: Jigsaw, trunk: TrunkOptions, seed: int):
        super().__init__()
        self.options = options
        # The set is part of the task, not of its seed: runs that differ in their seed stay comparable.
        self.register_buffer("permutations", torch.from_numpy(max_hamming_set(options.permutations)))
        self.network = ContextFreeNetwork(
            trunk,
            options.tiles,
            permutations=options.permutations,
            hidden=options.hidden,
            dropout=options.dropout,
            bn=options.bn,
            seed=seed,
        )
        self.trunk = self.network.trunk
        self.guess = math.log(options.permutations)

    @property
    def transform(self) -> CentreSquare:
        """Short side to 256, central 255 x 255."""
        return CentreSquare(self.options.resize, self.options.tiles.crop)

    def puzzles(self, pictures: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S) -> normalised tiles float (B, 9, 3, t, t) and permutations int64 (B,)."""
        cut = self.options.tiles
        tiles = cut_tiles(
            pictures, draws, crop=cut.crop, tile=cut.tile, jitter=cut.jitter, channel_shift=cut.channel_shift
        )
        label = draws.integers("permutation", 1, self.options.permutations)[:, 0]
        permutations: Tensor = self.permutations  # type: ignore[assignment]
        puzzle = grey_some(permute(tiles, permutations, label), draws, self.options.grey)
        return standardise(puzzle, per_channel=True, floor=1e-5), label

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Cross-entropy over the permutations."""
        puzzles, label = self.puzzles(batch.pictures, draws)
        logits = self.network(puzzles)
        return {"loss": F.cross_entropy(logits, label), "accuracy": accuracy(logits, label)}

    def show(self, batch: Batch, draws: Draws) -> list[tuple[str, Tensor]]:
        """The puzzle, and its tiles put back by the permutation that is the answer."""
        puzzles, label = self.puzzles(batch.pictures, draws)
        permutations: Tensor = self.permutations  # type: ignore[assignment]
        solved = permute(puzzles, permutations.argsort(dim=1), label)
        return [
            ("picture", batch.pictures),
            ("input: nine tiles", mosaic(visible(puzzles))),
            ("put back by the answer", mosaic(visible(solved))),
        ]


def build(options: Jigsaw, trunk: TrunkOptions, seed: int) -> JigsawTask:
    """The task with fresh weights."""
    return JigsawTask(options, trunk, seed)
