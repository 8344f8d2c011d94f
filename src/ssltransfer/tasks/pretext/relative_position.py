"""Context prediction (Doersch et al. 2015): which of eight neighbors of the first patch is the second?"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import PatchGrid, RelativePosition
from ssltransfer.data.device_ops import drop_colors, project_colors, random_downsample, scale_by_rms
from ssltransfer.data.drawing import outlined, visible
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.tiles import OFFSETS, PatchPairs, patch_pairs
from ssltransfer.data.transforms import ImageTransform, resize
from ssltransfer.models.backbone import Backbone, initialize, initialize_last
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS, PretextTask, backbone_of
from ssltransfer.tasks.pretext.pooled_backbone import PooledBackbone
from ssltransfer.training.task import accuracy


@dataclass(frozen=True)
class Canvas(ImageTransform):
    """Resize so that height x width is uniform in `pixels`, then crop a square at a random position.

    Doersch's loader keeps the whole resized image, but a batch needs one size. An image whose short side is shorter
    than the square is enlarged to it.
    """

    pixels: tuple[int, int]
    side: int

    @property
    def min_short_side(self) -> int:
        """Short side of a square image at its largest size."""
        return math.ceil(math.sqrt(self.pixels[1]))

    def apply(self, image: Tensor, rng: Random) -> Tensor:
        """(3, H, W) -> (3, side, side)."""
        height, width = image.shape[-2:]
        scale = math.sqrt(rng.uniform(*self.pixels) / (height * width))
        scale = max(scale, self.side / min(height, width))
        image = resize(image, max(self.side, round(height * scale)), max(self.side, round(width * scale)))
        top = rng.randint(0, image.shape[-2] - self.side)
        left = rng.randint(0, image.shape[-1] - self.side)
        return image[:, top : top + self.side, left : left + self.side]


class PairTask(PretextTask):
    """Eight-way classification of pairs of patches. Each patch passes the backbone once, regardless of its pairs."""

    options: PatchGrid

    @property
    def chance_loss(self) -> float:  # type: ignore[override]
        """Entropy of the labels."""
        return -sum(share * math.log(share) for share in label_shares(self.options))

    @property
    def transform(self) -> Canvas:
        """Resize by area, crop a square."""
        return Canvas(self.options.area_range, self.options.crop_size)

    @abstractmethod
    def prepare(self, pairs: PatchPairs) -> Tensor:
        """Inputs of the network: float (N, 3, patch, patch)."""

    @abstractmethod
    def embed(self, patches: Tensor) -> Tensor:
        """float (N, 3, patch, patch) -> (N, D)."""

    @abstractmethod
    def classify(self, both: Tensor) -> Tensor:
        """Concatenated embeddings of pairs (M, 2 D) -> logits (M, 8)."""

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy over the eight positions, averaged over the pairs."""
        pairs = patch_pairs(batch.images, rng, self.options)
        each = self.embed(self.prepare(pairs))
        logits = self.classify(torch.cat([each[pairs.first], each[pairs.second]], dim=1))
        return {"loss": F.cross_entropy(logits, pairs.label), "accuracy": accuracy(logits, pairs.label)}

    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """A pair of each image, with various labels: positions of its patches, and the inputs of the network."""
        pairs = patch_pairs(batch.images, rng, self.options)
        inputs = self.prepare(pairs)
        rows = [(pairs.corners[pairs.first, 0] == image).nonzero()[:, 0] for image in range(len(batch))]
        chosen = torch.stack([of_image[7 * image % len(of_image)] for image, of_image in enumerate(rows)])
        ends = torch.stack([pairs.first[chosen], pairs.second[chosen]], dim=1)
        left_top = pairs.corners[ends][..., [2, 1]] - 0.5
        square = inputs.shape[-1] * torch.tensor([(0, 0), (1, 0), (1, 1), (0, 1)])
        marked = [outlined(image, at[:, None] + square) for image, at in zip(batch.images, left_top, strict=True)]
        first, second = visible(inputs[ends]).unbind(1)
        return [("image", torch.stack(marked)), ("a patch (blue)", first), ("where is this one? (orange)", second)]


def label_shares(options: PatchGrid) -> list[float]:
    """Frequencies of the eight labels; their sum is 1.

    A small grid has fewer diagonal neighbors than straight ones, so that the chance-level loss is below ln 8.
    """
    pitch = options.patch + options.gap
    starts = min(pitch, options.crop_size - options.patch - pitch + 1)
    cells = [(options.crop_size - options.patch - start) // pitch + 1 for start in range(starts)]
    same, next_to = sum(cells), sum(count - 1 for count in cells)
    shares = [(next_to if dx else same) * (next_to if dy else same) for dx, dy in OFFSETS]
    return [share / sum(shares) for share in shares]


@PRETEXT_TASKS.register(RelativePosition)
class RelativePositionTask(PairTask):
    """Fully-connected layers on pool5 of each patch, then on both.

    Released cdoersch/deepcontext train.py (protocols 1.3a), on any backbone. Differences from the original AlexNet:
    CaffeNet keeps its two groups and has no padding in conv1 (96 pixels give 2x2x256 at pool5, not 3x3x256), and only
    fc6 and fc7 have batch normalization (without scale and shift, as there), so that the backbone is one that other
    stages can build. The patches have a root mean square of 1, not 50: that factor belongs to Caffe's initialization,
    and 1 is the root mean square under the normalization that later stages use.
    """

    options: RelativePosition

    def __init__(self, options: RelativePosition, backbone: BackboneOptions | Backbone, seed: int):
        super().__init__()
        self.options, self.normalization = options, options.normalization
        if isinstance(backbone, BackboneOptions):
            backbone = backbone.with_stem_stride(options.stem_stride)
        self.backbone = backbone_of(backbone, seed)
        self.pool5 = PooledBackbone(self.backbone, options.patch, "Patches")
        dim = options.hidden_dim

        def layer(inputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(inputs, dim), nn.BatchNorm1d(dim, affine=False), nn.ReLU(inplace=True))

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.fc6, self.fc7 = layer(self.pool5.features), layer(2 * dim)
            self.fc8 = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(inplace=True))
            self.fc9 = nn.Linear(dim, len(OFFSETS))
            for part in (self.fc6, self.fc7, self.fc8):
                initialize(part)
            initialize_last(self.fc9)

    def prepare(self, pairs: PatchPairs) -> Tensor:
        """Inputs of the network: float (N, 3, patch, patch), root mean square 1."""
        x = random_downsample(pairs.patches, pairs.rng, self.options.downsample_prob)
        if self.options.color_mode == "drop":
            return scale_by_rms(drop_colors(x, pairs.rng))
        return scale_by_rms(project_colors(x), center=True)

    def embed(self, patches: Tensor) -> Tensor:
        """float (N, 3, patch, patch) -> (N, hidden_dim)."""
        vectors: Tensor = self.fc6(self.pool5(patches))
        return vectors

    def classify(self, both: Tensor) -> Tensor:
        """Concatenated embeddings of pairs (M, 2 hidden_dim) -> logits (M, 8)."""
        logits: Tensor = self.fc9(self.fc8(self.fc7(both)))
        return logits
