"""Context (Doersch et al. 2015): two neighbouring patches; where does the second lie as seen from the first?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.tasks import PatchGrid, RelativePosition
from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.data.batches import Batch
from ssltransfer.data.device_ops import downsample_some, drop_colours, project_colours, scale_by_rms
from ssltransfer.data.drawing import outlined, visible
from ssltransfer.data.draws import Draws
from ssltransfer.data.tiles import OFFSETS, PatchPairs, patch_pairs
from ssltransfer.data.transforms import Transform, resize
from ssltransfer.models.build import build_trunk
from ssltransfer.models.normalise import Normalise
from ssltransfer.models.trunk import Trunk, initialise, initialise_last
from ssltransfer.stages.pretext.base import PretextTask
from ssltransfer.stages.pretext.pooled import Pooled
from ssltransfer.training.task import accuracy


@dataclass(frozen=True)
class Canvas:
    """The picture resized so that height x width is uniform in `pixels`, then a square cut out at a random place.

    Doersch's loader keeps the whole resized picture; a batch needs one size. A picture whose short side would not fill
    the square is enlarged until it does.
    """

    pixels: tuple[int, int]
    side: int

    @property
    def min_short_side(self) -> int:
        """What the decoder must deliver at least: a square picture at its largest."""
        return math.ceil(math.sqrt(self.pixels[1]))

    def __call__(self, picture: Tensor, random: Random) -> Tensor:
        """(3, H, W) -> (3, side, side)."""
        height, width = picture.shape[-2:]
        scale = math.sqrt(random.uniform(*self.pixels) / (height * width))
        scale = max(scale, self.side / min(height, width))
        picture = resize(picture, max(self.side, round(height * scale)), max(self.side, round(width * scale)))
        top = random.randint(0, picture.shape[-2] - self.side)
        left = random.randint(0, picture.shape[-1] - self.side)
        return picture[:, top : top + self.side, left : left + self.side]


class RelativePositionTask(PretextTask):
    """Eight-way question on pairs of patches; each patch passes the trunk once, however many pairs it is in.

    Released cdoersch/deepcontext train.py (protocols 1.3a), on whichever trunk is asked for. What differs from the
    original AlexNet: CaffeNet keeps its two groups and has no padding in conv1 (96 pixels give 2x2x256 at pool5, not
    3x3x256), and batch normalisation (without scale and shift, as there) stands in fc6 and fc7 only, so that the trunk
    stays one that other stages can build. The patches have a root mean square of 1, not 50: that factor belongs to
    Caffe's initialisation, and 1 is what pictures have under the rule that the trunk is used with afterwards.
    """

    rule: Normalise = "per-picture"

    def __init__(self, options: RelativePosition, trunk: TrunkOptions, seed: int, shared: Trunk | None = None):
        super().__init__()
        self.options = options
        stem = {"stem_stride": options.stem_stride} if options.stem_stride else {}
        own = trunk.model_copy(update=stem)
        self.trunk = shared if shared is not None else build_trunk(own, top=False, seed=seed)
        self.pool5 = Pooled(self.trunk, options.patch, "Patches")
        hidden = options.hidden
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
                initialise(part)
            initialise_last(self.fc9)
        self.guess = guess_of(options)

    @property
    def transform(self) -> Transform:
        """Resize by area, cut a square."""
        return Canvas(self.options.pixels, self.options.canvas)

    def patches(self, pictures: Tensor, draws: Draws) -> PatchPairs:
        """uint8 (B, 3, S, S) -> patches and their pairs, still pixels."""
        return pairs_of(self.options, pictures, draws)

    def prepare(self, pairs: PatchPairs) -> Tensor:
        """Patches as the network sees them: float (N, 3, patch, patch), root mean square 1."""
        x = downsample_some(pairs.patches, pairs.draws, probability=self.options.low_resolution)
        if self.options.colour == "drop":
            return scale_by_rms(drop_colours(x, pairs.draws), scale=1.0)
        return scale_by_rms(project_colours(x), scale=1.0, centre=True)

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Cross-entropy over the eight places, a mean over the pairs."""
        pairs = self.patches(batch.pictures, draws)
        each = self.fc6(self.pool5(self.prepare(pairs)))
        both = torch.cat([each[pairs.first], each[pairs.second]], dim=1)
        logits = self.fc9(self.fc8(self.fc7(both)))
        return {"loss": F.cross_entropy(logits, pairs.label), "accuracy": accuracy(logits, pairs.label)}

    def show(self, batch: Batch, draws: Draws) -> list[tuple[str, Tensor]]:
        """A pair of each picture."""
        pairs = self.patches(batch.pictures, draws)
        return show_pairs(batch.pictures, pairs, self.prepare(pairs))


def pairs_of(options: PatchGrid, pictures: Tensor, draws: Draws) -> PatchPairs:
    """uint8 (B, 3, S, S) -> patches and their pairs, still pixels."""
    return patch_pairs(
        pictures,
        draws,
        patch=options.patch,
        gap=options.gap,
        jitter=options.jitter,
        grids=options.grids,
        pairs=options.pairs,
    )


def label_shares(options: PatchGrid) -> list[float]:
    """How often each of the eight places is the answer; they sum to 1.

    A small grid has fewer diagonal neighbours than straight ones, so that a guess is right more often than ln 8 says.
    """
    pitch = options.patch + options.gap
    starts = min(pitch, options.canvas - options.patch - pitch + 1)
    cells = [(options.canvas - options.patch - start) // pitch + 1 for start in range(starts)]
    same, next_to = sum(cells), sum(count - 1 for count in cells)
    shares = [(next_to if dx else same) * (next_to if dy else same) for dx, dy in OFFSETS]
    return [share / sum(shares) for share in shares]


def guess_of(options: PatchGrid) -> float:
    """Loss of a guess: the entropy of the labels' shares."""
    return -sum(share * math.log(share) for share in label_shares(options))


def show_pairs(pictures: Tensor, pairs: PatchPairs, inputs: Tensor) -> list[tuple[str, Tensor]]:
    """A pair of each picture, with various answers: where its patches lie, and what the network is given.

    Args:
        pictures: uint8 (B, 3, S, S).
        pairs: cut from them.
        inputs: float (N, 3, patch, patch), their patches as the network sees them.
    """
    found = [(pairs.corners[pairs.first, 0] == row).nonzero()[:, 0] for row in range(len(pictures))]
    chosen = torch.stack([rows[7 * place % len(rows)] for place, rows in enumerate(found)])
    ends = torch.stack([pairs.first[chosen], pairs.second[chosen]], dim=1)
    side = inputs.shape[-1]
    left_top = pairs.corners[ends][..., [2, 1]] - 0.5
    square = side * torch.tensor([(0, 0), (1, 0), (1, 1), (0, 1)])
    marked = [outlined(picture, at[:, None] + square) for picture, at in zip(pictures, left_top, strict=True)]
    first, second = visible(inputs[ends]).unbind(1)
    return [("picture", torch.stack(marked)), ("a patch (blue)", first), ("where is this one? (orange)", second)]


def build(
    options: RelativePosition, trunk: TrunkOptions, seed: int, shared: Trunk | None = None
) -> RelativePositionTask:
    """The task with fresh weights; on a trunk that others train too, if `shared` is given."""
    return RelativePositionTask(options, trunk, seed, shared)
