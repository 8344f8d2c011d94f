"""Relative patch location (Kolesnikov et al. 2019): where does a patch lie as seen from the centre one?"""

from __future__ import annotations

import torch
from torch import Tensor

from ssltransfer.config.tasks import RelativePatchLocation
from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.data.batches import Batch
from ssltransfer.data.drawing import visible
from ssltransfer.data.draws import Draws
from ssltransfer.data.tiles import OFFSETS
from ssltransfer.stages.pretext.patches import PatchNetwork, PatchTask

CENTRE = 4
AROUND = tuple(cell for cell in range(9) if cell != CENTRE)  # cell of each answer, in the order of OFFSETS


class RelativePatchLocationTask(PatchTask):
    """All eight pairs of an outer patch and the centre one, of each picture (protocols 1.3b)."""

    def __init__(self, options: RelativePatchLocation, trunk: TrunkOptions, seed: int):
        super().__init__(options, len(OFFSETS))
        self.network = PatchNetwork(trunk, options, joined=2, answers=len(OFFSETS), seed=seed)
        self.trunk = self.network.trunk

    def labels(self, draws: Draws) -> Tensor:
        """Every place once, int64 (B, 8)."""
        return torch.arange(len(OFFSETS), device=draws.key.device).repeat(len(draws.key), 1)

    def orders(self, labels: Tensor) -> Tensor:
        """The outer patch, then the centre one."""
        outer = torch.tensor(AROUND, device=labels.device)[labels]
        return torch.stack([outer, torch.full_like(outer, CENTRE)], dim=2)

    def show(self, batch: Batch, draws: Draws) -> list[tuple[str, Tensor]]:
        """The centre patch, and the others with their answers."""
        patches = visible(self.inputs(batch.pictures, draws)[0])
        outer = [(f"answer: {answer}", patches[:, cell]) for answer, cell in enumerate(AROUND)]
        return [("picture", batch.pictures), ("centre", patches[:, CENTRE]), *outer]


def build(options: RelativePatchLocation, trunk: TrunkOptions, seed: int) -> RelativePatchLocationTask:
    """The task with fresh weights."""
    return RelativePatchLocationTask(options, trunk, seed)
