"""Jigsaw of embedded patches (Kolesnikov et al. 2019): each picture in several orders; which ones?"""

from __future__ import annotations

import torch
from torch import Tensor

from ssltransfer.config.tasks import JigsawKolesnikov
from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.data.draws import Draws
from ssltransfer.data.permutations import max_hamming_set
from ssltransfer.stages.pretext.patches import PatchNetwork, PatchTask


class JigsawKolesnikovTask(PatchTask):
    """Embeddings of nine patches in one of 100 orders (protocols 1.4).

    The patches pass the trunk once, their embeddings are joined in `shown` different orders. These are drawn for each
    picture by itself, as in the paper; the released code draws them for a batch, "for simplicity". The released set of
    permutations is the authors' own file; here it is made by the same rule.
    """

    def __init__(self, options: JigsawKolesnikov, trunk: TrunkOptions, seed: int):
        super().__init__(options, options.permutations)
        self.options = options
        # The set is part of the task, not of its seed: runs that differ in their seed stay comparable.
        self.register_buffer("permutations", torch.from_numpy(max_hamming_set(options.permutations)))
        self.network = PatchNetwork(trunk, options, joined=9, answers=options.permutations, seed=seed)
        self.trunk = self.network.trunk

    def labels(self, draws: Draws) -> Tensor:
        """Different permutations for each picture, int64 (B, shown)."""
        return draws.permutation("permutations", self.options.permutations)[:, : self.options.shown]

    def orders(self, labels: Tensor) -> Tensor:
        """Slot i shows patch permutations[label][i]."""
        permutations: Tensor = self.permutations  # type: ignore[assignment]
        return permutations[labels].long()


def build(options: JigsawKolesnikov, trunk: TrunkOptions, seed: int) -> JigsawKolesnikovTask:
    """The task with fresh weights."""
    return JigsawKolesnikovTask(options, trunk, seed)
