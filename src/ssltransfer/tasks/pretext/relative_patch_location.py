"""Relative patch location (Kolesnikov et al. 2019): which neighbor of the center patch is a patch?"""

import torch
from torch import Tensor

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import RelativePatchLocation
from ssltransfer.data.drawing import visible
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.tiles import OFFSETS
from ssltransfer.data.transfer import constant
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS
from ssltransfer.tasks.pretext.patches import PatchNetwork, PatchTask

CENTER = 4
AROUND = tuple(cell for cell in range(9) if cell != CENTER)  # cell of each label, in the order of OFFSETS


@PRETEXT_TASKS.register(RelativePatchLocation)
class RelativePatchLocationTask(PatchTask):
    """All eight pairs of an outer patch and the center one, of each image (protocols 1.3b)."""

    def __init__(self, options: RelativePatchLocation, backbone: BackboneOptions, seed: int):
        super().__init__(options, len(OFFSETS))
        self.network = PatchNetwork(backbone, options, joined=2, answers=len(OFFSETS), seed=seed)
        self.backbone = self.network.backbone

    def labels(self, rng: SampleRNG) -> Tensor:
        """Every neighbor once, int64 (B, 8)."""
        return torch.arange(len(OFFSETS), device=rng.device).repeat(len(rng), 1)

    def orders(self, labels: Tensor) -> Tensor:
        """The outer patch, then the center one."""
        outer = constant(AROUND, labels.device)[labels]
        return torch.stack([outer, torch.full_like(outer, CENTER)], dim=2)

    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """The center patch, and the others with their labels."""
        patches = visible(self.inputs(batch.images, rng)[0])
        outer = [(f"answer: {answer}", patches[:, cell]) for answer, cell in enumerate(AROUND)]
        return [("image", batch.images), ("center", patches[:, CENTER]), *outer]
