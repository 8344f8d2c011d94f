"""Jigsaw (Noroozi & Favaro 2016): nine tiles of a image in one of N orders; which one?"""

from __future__ import annotations

from torch import Tensor

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import Jigsaw
from ssltransfer.data.device_ops import random_grayscale, standardize
from ssltransfer.data.permutations import max_hamming_set
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.tiles import cut_tiles, permute
from ssltransfer.models.normalize import Normalize
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS
from ssltransfer.tasks.pretext.puzzle import PuzzleTask


@PRETEXT_TASKS.register(Jigsaw)
class JigsawTask(PuzzleTask):
    """Which permutation were the tiles put in?

    Released JigsawPuzzleSolver and its PyTorch port: 255-pixel center crop of a image with short side 256, a tile of
    64 anywhere in each cell of 85, each color channel shifted by itself, 30 % of the images gray, each tile and
    channel to zero mean and unit deviation (protocols 1.1).
    """

    normalization: Normalize = "per-channel"

    def __init__(self, options: Jigsaw, backbone: BackboneOptions, seed: int):
        super().__init__(options, backbone, seed, max_hamming_set(options.permutations))
        self.options = options

    def puzzles(self, images: Tensor, rng: SampleRNG) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S) -> normalized tiles float (B, 9, 3, t, t) and permutations int64 (B,)."""
        cut = self.options.tiles
        tiles = cut_tiles(images, rng, crop=cut.crop, tile=cut.tile, jitter=cut.jitter, channel_shift=cut.channel_shift)
        label = rng.integers("permutation", 1, self.options.permutations)[:, 0]
        puzzle = random_grayscale(permute(tiles, self.permutations, label), rng, self.options.grayscale_prob)
        return standardize(puzzle, per_channel=True, floor=1e-5), label
