"""Context (Doersch et al. 2015): two neighboring patches; where does the second lie as seen from the first?"""

from __future__ import annotations

import math
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
from ssltransfer.data.transforms import ImageTransform, Transform, resize
from ssltransfer.models.backbone import Backbone, initialize, initialize_last
from ssltransfer.models.build import build_backbone
from ssltransfer.models.normalize import Normalize
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS, PretextTask
from ssltransfer.tasks.pretext.pooled_backbone import PooledBackbone
from ssltransfer.training.task import accuracy


@dataclass(frozen=True)
class Canvas(ImageTransform):
    """The image resized so that height x width is uniform in `pixels`, then a square cut out at a random place.

    Doersch's loader keeps the whole resized image; a batch needs one size. A image whose short side would not fill
    the square is enlarged until it does.
    """

    pixels: tuple[int, int]
    side: int

    @property
    def min_short_side(self) -> int:
        """What the decoder must deliver at least: a square image at its largest."""
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


@PRETEXT_TASKS.register(RelativePosition)
class RelativePositionTask(PretextTask):
    """Eight-way question on pairs of patches; each patch passes the backbone once, however many pairs it is in.

    Released cdoersch/deepcontext train.py (protocols 1.3a), on whichever backbone is asked for. What differs from the
    original AlexNet: CaffeNet keeps its two groups and has no padding in conv1 (96 pixels give 2x2x256 at pool5, not
    3x3x256), and only fc6 and fc7 have batch normalization (without scale and shift, as there), so that the backbone is
    one that other stages can build. The patches have a root mean square of 1, not 50: that factor belongs to Caffe's
    initialization, and 1 is the root mean square under the normalization that later stages use.
    """

    normalization: Normalize = "per-image"

    def __init__(self, options: RelativePosition, backbone: BackboneOptions, seed: int, shared: Backbone | None = None):
        super().__init__()
        self.options = options
        stem = {"stem_stride": options.stem_stride} if options.stem_stride else {}
        own = backbone.model_copy(update=stem)
        self.backbone = shared if shared is not None else build_backbone(own, include_top=False, seed=seed)
        self.pool5 = PooledBackbone(self.backbone, options.patch, "Patches")
        hidden = options.hidden_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.fc6 = nn.Sequential(
                nn.Linear(self.pool5.features, hidden), nn.BatchNorm1d(hidden, affine=False), nn.ReLU(inplace=True)
            )
            self.fc7 = nn.Sequential(
                nn.Linear(2 * hidden, hidden), nn.BatchNorm1d(hidden, affine=False), nn.ReLU(inplace=True)
            )
            self.fc8 = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(inplace=True))
            self.fc9 = nn.Linear(hidden, len(OFFSETS))
            for part in (self.fc6, self.fc7, self.fc8):
                initialize(part)
            initialize_last(self.fc9)
        self.chance_loss = chance_loss_of(options)

    @property
    def transform(self) -> Transform:
        """Resize by area, cut a square."""
        return Canvas(self.options.area_range, self.options.crop_size)

    def patches(self, images: Tensor, rng: SampleRNG) -> PatchPairs:
        """uint8 (B, 3, S, S) -> patches and their pairs, still pixels."""
        return pairs_of(self.options, images, rng)

    def prepare(self, pairs: PatchPairs) -> Tensor:
        """Patches as the network sees them: float (N, 3, patch, patch), root mean square 1."""
        x = random_downsample(pairs.patches, pairs.rng, probability=self.options.downsample_prob)
        if self.options.color_mode == "drop":
            return scale_by_rms(drop_colors(x, pairs.rng), scale=1.0)
        return scale_by_rms(project_colors(x), scale=1.0, center=True)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy over the eight places, a mean over the pairs."""
        pairs = self.patches(batch.images, rng)
        each = self.fc6(self.pool5(self.prepare(pairs)))
        both = torch.cat([each[pairs.first], each[pairs.second]], dim=1)
        logits = self.fc9(self.fc8(self.fc7(both)))
        return {"loss": F.cross_entropy(logits, pairs.label), "accuracy": accuracy(logits, pairs.label)}

    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """A pair of each image."""
        pairs = self.patches(batch.images, rng)
        return show_pairs(batch.images, pairs, self.prepare(pairs))


def pairs_of(options: PatchGrid, images: Tensor, rng: SampleRNG) -> PatchPairs:
    """uint8 (B, 3, S, S) -> patches and their pairs, still pixels."""
    return patch_pairs(
        images,
        rng,
        patch=options.patch,
        gap=options.gap,
        jitter=options.jitter,
        grids=options.grids_per_image,
        pairs=options.pairs_per_image,
    )


def label_shares(options: PatchGrid) -> list[float]:
    """How often each of the eight places is the answer; they sum to 1.

    A small grid has fewer diagonal neighbors than straight ones, so that chance is right more often than ln 8 says.
    """
    pitch = options.patch + options.gap
    starts = min(pitch, options.crop_size - options.patch - pitch + 1)
    cells = [(options.crop_size - options.patch - start) // pitch + 1 for start in range(starts)]
    same, next_to = sum(cells), sum(count - 1 for count in cells)
    shares = [(next_to if dx else same) * (next_to if dy else same) for dx, dy in OFFSETS]
    return [share / sum(shares) for share in shares]


def chance_loss_of(options: PatchGrid) -> float:
    """Chance-level loss: the entropy of the labels' shares."""
    return -sum(share * math.log(share) for share in label_shares(options))


def show_pairs(images: Tensor, pairs: PatchPairs, inputs: Tensor) -> list[tuple[str, Tensor]]:
    """A pair of each image, with various answers: where its patches lie, and what the network is given.

    Args:
        images: uint8 (B, 3, S, S).
        pairs: cut from them.
        inputs: float (N, 3, patch, patch), their patches as the network sees them.
    """
    found = [(pairs.corners[pairs.first, 0] == row).nonzero()[:, 0] for row in range(len(images))]
    chosen = torch.stack([rows[7 * place % len(rows)] for place, rows in enumerate(found)])
    ends = torch.stack([pairs.first[chosen], pairs.second[chosen]], dim=1)
    side = inputs.shape[-1]
    left_top = pairs.corners[ends][..., [2, 1]] - 0.5
    square = side * torch.tensor([(0, 0), (1, 0), (1, 1), (0, 1)])
    marked = [outlined(image, at[:, None] + square) for image, at in zip(images, left_top, strict=True)]
    first, second = visible(inputs[ends]).unbind(1)
    return [("image", torch.stack(marked)), ("a patch (blue)", first), ("where is this one? (orange)", second)]
