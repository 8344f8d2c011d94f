"""Relative position as in Doersch & Zisserman 2017: eight positions, a residual head, color dropping or lightness."""

import torch
from torch import Tensor, nn

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import RelativePositionResidual
from ssltransfer.data.device_ops import drop_colors, random_downsample, scale_by_rms
from ssltransfer.data.lab import lightness_alone, rgb_to_lab
from ssltransfer.data.tiles import OFFSETS, PatchPairs
from ssltransfer.models.backbone import Backbone, initialize, initialize_last
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS, backbone_of
from ssltransfer.tasks.pretext.relative_position import PairTask
from ssltransfer.tasks.pretext.residual_head import ConnectedUnit, PatchVectors

_UNITS = 3  # fully-connected residual units


@PRETEXT_TASKS.register(RelativePositionResidual)
class RelativePositionResidualTask(PairTask):
    """Pairs are cut as in Doersch et al. 2015; the head has residual units (protocols 1.3a, 1.3c).

    The vectors of both patches are concatenated and pass three fully-connected residual units, a norm, a ReLU and a
    linear layer. Patches keep one random color channel. With `lightness_input` they have their lightness in all three
    channels, as in colorization, so that tasks which share a backbone have the same kind of input.
    """

    options: RelativePositionResidual

    def __init__(self, options: RelativePositionResidual, backbone: BackboneOptions | Backbone, seed: int):
        super().__init__()
        self.options = options
        self.normalization = options.normalization
        self.backbone = backbone_of(backbone, seed)
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

    def prepare(self, pairs: PatchPairs) -> Tensor:
        """Inputs of the network: float (N, 3, patch, patch)."""
        x = random_downsample(pairs.patches, pairs.rng, self.options.downsample_prob)
        if self.options.lightness_input:
            return lightness_alone(rgb_to_lab(x))
        return scale_by_rms(drop_colors(x, pairs.rng))

    def embed(self, patches: Tensor) -> Tensor:
        """float (N, 3, patch, patch) -> (N, D)."""
        vectors: Tensor = self.vectors(patches)
        return vectors

    def classify(self, both: Tensor) -> Tensor:
        """Concatenated vectors of pairs (M, 2 D) -> logits (M, 8)."""
        logits: Tensor = self.head(both)
        return logits
