"""Tasks on nine patches (Kolesnikov et al. 2019): jigsaw and relative patch location share all but the question."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import PatchOptions
from ssltransfer.data.device_ops import random_grayscale, standardize
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.tiles import cut_tiles
from ssltransfer.data.transforms import Warp
from ssltransfer.models.backbone import initialize, initialize_last
from ssltransfer.models.build import build_tile_backbone
from ssltransfer.models.normalize import Normalize
from ssltransfer.tasks.pretext.base import PretextTask
from ssltransfer.tasks.pretext.patch_embed import PatchEmbed
from ssltransfer.training.task import accuracy


class PatchNetwork(nn.Module):
    """Every patch embedded once; then some of the nine embeddings, joined in an order, become an answer.

    Released patch_utils.py: the network's 1000 logits for each patch, joined, 4096 units with batch normalization, ReLU
    and dropout, the answers (protocols 1.4). The code joins the embeddings number by number instead of one after the
    other, which is the same network with its weights in another order.

    Args:
        backbone: on patches: finer stem and last block (2.3).
        task: sizes.
        joined: embeddings of an answer.
        answers: how many there are to choose from.
        seed: of all weights.

    Raises:
        LayerError: patches are too small for the backbone.
    """

    def __init__(self, backbone: BackboneOptions, task: PatchOptions, *, joined: int, answers: int, seed: int):
        super().__init__()
        self.backbone = build_tile_backbone(backbone, seed=seed, stem_stride=task.tiles.stem_stride)
        self.embedding = PatchEmbed(self.backbone, task.tiles.tile, "Patches", task.embed_dim, seed=seed + 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 2)
            self.fc7 = nn.Sequential(
                nn.Linear(joined * task.embed_dim, task.hidden_dim),
                nn.BatchNorm1d(task.hidden_dim, eps=1e-5, momentum=task.bn_momentum),
                nn.ReLU(inplace=True),
                nn.Dropout(task.dropout),
            )
            self.fc8 = nn.Linear(task.hidden_dim, answers)
            initialize(self.fc7)
            initialize_last(self.fc8)

    def forward(self, patches: Tensor, order: Tensor) -> Tensor:
        """Logits (B * M, answers) of M questions on each image.

        Args:
            patches: float (B, 9, 3, t, t), row by row as in the image.
            order: int64 (B, M, joined), which patches are joined, in which order.
        """
        each = self.embedding(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
        image = torch.arange(len(each), device=each.device)[:, None, None]
        logits: Tensor = self.fc8(self.fc7(each[image, order].flatten(2).flatten(0, 1)))
        return logits


class PatchTask(PretextTask):
    """Nine patches of a image, and several questions on their order.

    Released preprocessing (protocols 1.4): the whole image as a square of 292, gray with probability .66, a random
    crop of 255 in 3x3 cells of 85, a random 64x64 of each, every one with zero mean and unit deviation over pixels and
    channels. Validation images are cut at the center, the patches from the middle of their cells; whether they are gray
    and what is asked is drawn, the same each time.
    """

    normalization: Normalize = "per-image"
    network: PatchNetwork

    def __init__(self, options: PatchOptions, answers: int):
        super().__init__()
        self.patch_options = options
        self.chance_loss = math.log(answers)

    @property
    def transform(self) -> Warp:
        """The whole image, its aspect lost."""
        return Warp(self.patch_options.resize)

    def inputs(self, images: Tensor, rng: SampleRNG) -> tuple[Tensor, Tensor]:
        """What the network is given.

        Args:
            images: uint8 (B, 3, S, S).
            rng: random numbers of the images.

        Returns:
            Patches, normalized, in the image's order: float (B, 9, 3, t, t); the right answers: int64 (B, M).
        """
        options, cut = self.patch_options, self.patch_options.tiles
        patches = cut_tiles(
            images,
            rng if self.training else None,
            crop=cut.crop,
            tile=cut.tile,
            jitter=cut.jitter,
            channel_shift=cut.channel_shift,
        )
        patches = random_grayscale(patches, rng, options.grayscale_prob, each=options.grayscale_per_patch)
        return standardize(patches), self.labels(rng)

    @abstractmethod
    def labels(self, rng: SampleRNG) -> Tensor:
        """The right answers, int64 (B, M)."""

    @abstractmethod
    def orders(self, labels: Tensor) -> Tensor:
        """Answers (B, M) -> the patches that are joined for each, int64 (B, M, joined)."""

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy over the answers, a mean over the questions."""
        patches, labels = self.inputs(batch.images, rng)
        logits, target = self.network(patches, self.orders(labels)), labels.flatten()
        return {"loss": F.cross_entropy(logits, target), "accuracy": accuracy(logits, target)}
