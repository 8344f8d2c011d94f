"""Relative position in Doersch & Zisserman's form: eight places, a residual head, colors dropped or harmonized."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import RelativePositionResidual
from ssltransfer.data.device_ops import drop_colors, random_downsample, scale_by_rms
from ssltransfer.data.lab import lightness_alone, rgb_to_lab
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.tiles import OFFSETS, PatchPairs
from ssltransfer.models.backbone import Backbone, initialize, initialize_last
from ssltransfer.models.build import build_backbone
from ssltransfer.models.normalize import Normalize
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS, PretextTask
from ssltransfer.tasks.pretext.relative_position import Canvas, chance_loss_of, pairs_of, show_pairs
from ssltransfer.tasks.pretext.residual_head import ConnectedUnit, PatchVectors
from ssltransfer.training.task import accuracy

_UNITS = 3  # fully-connected ones


@PRETEXT_TASKS.register(RelativePositionResidual)
class RelativePositionResidualTask(PretextTask):
    """Eight-way question on pairs of patches, which are cut as Doersch et al. 2015 do (protocols 1.3a, 1.3c).

    The vectors of both patches are joined and go through three fully-connected residual units, a norm, a ReLU and a
    linear layer. Patches keep one random color channel; harmonized ones have their lightness in all three, as
    colorization has it, so that tasks which share a backbone give it the same kind of image.
    """

    def __init__(
        self, options: RelativePositionResidual, backbone: BackboneOptions, seed: int, shared: Backbone | None = None
    ):
        super().__init__()
        self.options = options
        self.normalization: Normalize = "lab-lightness" if options.lightness_input else "per-image"
        self.backbone = shared if shared is not None else build_backbone(backbone, include_top=False, seed=seed)
        self.vectors = PatchVectors(self.backbone, options.head, patch=options.patch, seed=seed + 1)
        both = 2 * self.vectors.features
        width = options.width or both
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 2)
            last = nn.Linear(width, len(OFFSETS))
            self.head = nn.Sequential(
                *([nn.Linear(both, width, bias=False)] if options.width else []),
                *(ConnectedUnit(width, options.hidden_dim) for _ in range(_UNITS)),
                nn.BatchNorm1d(width),
                nn.ReLU(inplace=True),
                last,
            )
            initialize(self.head)
            initialize_last(last)
        self.chance_loss = chance_loss_of(options)

    @property
    def transform(self) -> Canvas:
        """Resize by area, cut a square."""
        return Canvas(self.options.area_range, self.options.crop_size)

    def patches(self, images: Tensor, rng: SampleRNG) -> PatchPairs:
        """uint8 (B, 3, S, S) -> patches and their pairs, still pixels."""
        return pairs_of(self.options, images, rng)

    def prepare(self, pairs: PatchPairs) -> Tensor:
        """Patches as the network sees them: float (N, 3, patch, patch)."""
        x = random_downsample(pairs.patches, pairs.rng, probability=self.options.downsample_prob)
        if self.options.lightness_input:
            return lightness_alone(rgb_to_lab(x))
        return scale_by_rms(drop_colors(x, pairs.rng), scale=1.0)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy over the eight places, a mean over the pairs."""
        pairs = self.patches(batch.images, rng)
        each = self.vectors(self.prepare(pairs))
        logits = self.head(torch.cat([each[pairs.first], each[pairs.second]], dim=1))
        return {"loss": F.cross_entropy(logits, pairs.label), "accuracy": accuracy(logits, pairs.label)}

    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """A pair of each image."""
        pairs = self.patches(batch.images, rng)
        return show_pairs(batch.images, pairs, self.prepare(pairs))
