"""Jigsaw (Noroozi & Favaro 2016): classify the permutation of nine tiles of an image."""

from torch import Tensor

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import Jigsaw
from ssltransfer.data.device_ops import random_grayscale, standardize
from ssltransfer.data.permutations import permutation_set
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.tiles import cut_tiles, permute
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS
from ssltransfer.tasks.pretext.puzzle import PuzzleTask


@PRETEXT_TASKS.register(Jigsaw)
class JigsawTask(PuzzleTask):
    """Classification of the permutation of the tiles.

    Released JigsawPuzzleSolver and its PyTorch port: 255-pixel center crop of an image with short side 256, a random
    tile of 64 in each cell of 85, an independent shift of each color channel, 30 % of the images gray, each channel of
    a tile standardized (protocols 1.1).
    """

    def __init__(self, options: Jigsaw, backbone: BackboneOptions, seed: int):
        super().__init__(options, backbone, seed, permutation_set(options))
        self.options, self.normalization = options, options.normalization

    def puzzles(self, images: Tensor, rng: SampleRNG) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S) -> normalized tiles float (B, 9, 3, t, t) and permutations int64 (B,)."""
        tiles = cut_tiles(images, rng, self.options.tiles)
        label = rng.integers("permutation", 1, self.options.permutations)[:, 0]
        puzzle = random_grayscale(permute(tiles, self.permutations, label), rng, self.options.grayscale_prob)
        return standardize(puzzle, per_channel=True), label
