"""Jigsaw++ (Noroozi et al. 2018, section 4): a puzzle in which up to two tiles come from another image."""

import torch
from torch import Tensor

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import JigsawPP
from ssltransfer.data.device_ops import project_colors, random_grayscale, standardize
from ssltransfer.data.permutations import permutation_set
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.tiles import cut_tiles, occlude, permute
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS, partners
from ssltransfer.tasks.pretext.puzzle import PuzzleTask


@PRETEXT_TASKS.register(JigsawPP)
class JigsawPPTask(PuzzleTask):
    """Classification of the permutation of the tiles, up to two of which come from another image.

    Images are taken in pairs: the occluders of an image come from its partner in the batch (`partners`).
    """

    def __init__(self, options: JigsawPP, backbone: BackboneOptions, seed: int):
        super().__init__(options, backbone, seed, permutation_set(options))
        self.options, self.normalization = options, options.normalization

    def puzzles(self, images: Tensor, rng: SampleRNG) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S) -> normalized tiles float (B, 9, 3, t, t) and permutations int64 (B,).

        Raises:
            TrainingError: B is odd.
        """
        tiles = cut_tiles(images, rng, self.options.tiles)
        others = cut_tiles(partners(images, "Jigsaw++"), rng, self.options.tiles, purpose="occluders")
        label = rng.integers("permutation", 1, self.options.permutations)[:, 0]
        puzzle = occlude(permute(tiles, self.permutations, label), others, rng, self.options.occluders)
        # Once for the puzzle with its occluders: a difference in color would reveal them.
        puzzle = random_grayscale(puzzle, rng, self.options.grayscale_prob)
        if self.options.color_projection_prob:
            some = rng.uniform("projection", 1)[:, :, None, None, None] < self.options.color_projection_prob
            puzzle = torch.where(some, project_colors(puzzle), puzzle)
        return standardize(puzzle), label
