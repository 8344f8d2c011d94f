"""Jigsaw of embedded patches (Kolesnikov et al. 2019): each picture in several orders; which ones?"""

from __future__ import annotations

import torch
from torch import Tensor

from ssltransfer.config.tasks import JigsawKolesnikov
from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.data.batches import Batch
from ssltransfer.data.drawing import mosaic, visible
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

    def show(self, batch: Batch, draws: Draws) -> list[tuple[str, Tensor]]:
        """The patches in two of the orders, and the first put back by the permutation that is the answer."""
        patches, labels = self.inputs(batch.pictures, draws)
        orders = self.orders(labels[:, :2])
        picture = torch.arange(len(patches), device=patches.device)[:, None, None]
        shown = visible(patches)[picture, orders]  # (B, orders, 9, 3, t, t)
        back = shown[:, 0][picture[:, 0], orders[:, 0].argsort(dim=1)]
        joined = [(f"input: order {number}", mosaic(one)) for number, one in enumerate(shown.unbind(1), 1)]
        return [("picture", batch.pictures), *joined, ("order 1 put back by the answer", mosaic(back))]


def build(options: JigsawKolesnikov, trunk: TrunkOptions, seed: int) -> JigsawKolesnikovTask:
    """The task with fresh weights."""
    return JigsawKolesnikovTask(options, trunk, seed)
