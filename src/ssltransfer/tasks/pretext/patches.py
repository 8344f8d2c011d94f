"""Tasks on nine patches (Kolesnikov et al. 2019): the base of jigsaw and relative patch location."""

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
from ssltransfer.models.build import build_backbone
from ssltransfer.tasks.pretext.base import PretextTask
from ssltransfer.tasks.pretext.pooled_backbone import PatchEmbed
from ssltransfer.training.task import accuracy


class PatchNetwork(nn.Module):
    """Embeddings of nine patches; some of them, concatenated in an order, are classified.

    Released patch_utils.py: the network's 1000 logits of each patch, concatenated, 4096 units with batch normalization,
    ReLU and dropout, the classes (protocols 1.4). The released code interleaves the embeddings instead of concatenating
    them, which is the same network with its weights in another order.

    The backbone has the finer strides for tiles (2.3). `joined` embeddings are concatenated.

    Raises:
        LayerError: patches are too small for the backbone.
    """

    def __init__(self, backbone: BackboneOptions, task: PatchOptions, *, joined: int, answers: int, seed: int):
        super().__init__()
        self.backbone = build_backbone(backbone.for_tiles(task.tiles.stem_stride), include_top=False, seed=seed)
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
        """Patches, float (B, 9, 3, t, t), and M orders of them, int64 (B, M, joined) -> logits (B * M, answers)."""
        each = self.embedding(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
        image = torch.arange(len(each), device=each.device)[:, None, None]
        logits: Tensor = self.fc8(self.fc7(each[image, order].flatten(2).flatten(0, 1)))
        return logits


class PatchTask(PretextTask):
    """Classification of M orders of the nine patches of an image.

    Released preprocessing (protocols 1.4): the whole image as a square of 292, gray with probability .66, a random crop
    of 255 in 3x3 cells of 85, a random 64x64 of each, standardized over pixels and channels. Validation images have a
    center crop, and patches from the centers of the cells; gray and labels are random, the same in each validation.
    """

    options: PatchOptions
    network: PatchNetwork

    def __init__(self, options: PatchOptions, answers: int):
        super().__init__()
        self.options, self.normalization = options, options.normalization
        self.chance_loss = math.log(answers)

    @property
    def transform(self) -> Warp:
        """The whole image, resized to a square."""
        return Warp(self.options.resize)

    def inputs(self, images: Tensor, rng: SampleRNG) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S) -> patches, normalized, float (B, 9, 3, t, t), and labels, int64 (B, M)."""
        options = self.options
        patches = cut_tiles(images, rng if self.training else None, options.tiles)
        patches = random_grayscale(patches, rng, options.grayscale_prob, each=options.grayscale_per_patch)
        return standardize(patches), self.labels(rng)

    @abstractmethod
    def labels(self, rng: SampleRNG) -> Tensor:
        """Labels, int64 (B, M)."""

    @abstractmethod
    def orders(self, labels: Tensor) -> Tensor:
        """Labels (B, M) -> indices of the patches that are concatenated, int64 (B, M, joined)."""

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy, averaged over the orders."""
        patches, labels = self.inputs(batch.images, rng)
        logits, target = self.network(patches, self.orders(labels)), labels.flatten()
        return {"loss": F.cross_entropy(logits, target), "accuracy": accuracy(logits, target)}
