"""Motion segmentation (Doersch & Zisserman 2017): which pixels of a single frame will move?"""

import math
from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import MotionSegmentation
from ssltransfer.data.drawing import visible
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.targets import read_target
from ssltransfer.data.transforms import Transform, resize
from ssltransfer.models.backbone import Backbone, LayerError, initialize
from ssltransfer.models.normalize import normalize
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS, PretextTask, backbone_of


@dataclass(frozen=True)
class WithMotion(Transform):
    """The first frame of a clip, resized to one size, and its motion mask."""

    height: int
    width: int

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """uint8 (3, H, W) -> uint8 (3, height, width) and `motion`, uint8 (h, w), 1 for moving foreground."""
        if index.targets is None or index.targets.kind != "motion":
            raise ArtifactError(f"{index.root}: has no motion masks; name a dataset of format video.")
        cells = torch.from_numpy(read_target(index, sample).copy())  # type: ignore[union-attr]
        return {"image": resize(image, self.height, self.width), "motion": cells}


@PRETEXT_TASKS.register(MotionSegmentation)
class MotionSegmentationTask(PretextTask):
    """Binary cross-entropy of each cell with the motion that follows this frame (protocols 1.8).

    The head on the backbone's last map has two 1x1 convolutions with ReLU and one to a single channel. block3 at output
    stride 8 has one location per cell of 8 x 8 pixels. A location of a map of another size is foreground if at least
    half of its cells are.

    Raises:
        LayerError: the images are too small for the backbone.
    """

    chance_loss = math.log(2)

    def __init__(self, options: MotionSegmentation, backbone: BackboneOptions | Backbone, seed: int):
        super().__init__()
        self.options, self.normalization = options, options.normalization
        self.backbone = backbone_of(backbone, seed)
        self.layer = self.backbone.options.spatial_layers[-1]
        hidden = options.hidden_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            last = nn.Conv2d(hidden, 1, 1)
            self.head = nn.Sequential(
                nn.Conv2d(self._channels(), hidden, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden, hidden, 1),
                nn.ReLU(inplace=True),
                last,
            )
            initialize(self.head)
            nn.init.normal_(last.weight, std=0.01)

    def _channels(self) -> int:
        height, width = self.options.input
        try:
            return self.backbone.shapes((height, width))[self.layer][0]
        except RuntimeError:
            raise LayerError(
                f"Images of {width} x {height} pixels are too small for {self.backbone.options.name}; increase "
                "`input` of motion-segmentation."
            ) from None

    @property
    def transform(self) -> WithMotion:
        """The whole frame, and its motion mask."""
        return WithMotion(*self.options.input)

    def inputs(self, batch: Batch, rng: SampleRNG) -> tuple[Tensor, Tensor]:
        """Images float (B, 3, H, W), normalized, and cells uint8 (B, h, w), both randomly flipped."""
        images, cells = batch.images, batch.targets["motion"]
        if self.training and self.options.hflip:
            mirrored = rng.uniform("mirror", 1)[:, 0] < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
            cells = torch.where(mirrored[:, None, None], cells.flip(-1), cells)
        return normalize(images, self.normalization), cells

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Binary cross-entropy over the cells; intersection over union, and fraction of foreground."""
        inputs, cells = self.inputs(batch, rng)
        logits = self.head(self.backbone(inputs, [self.layer])[self.layer])[:, 0].float()
        truth = resize_by_majority(cells, (logits.shape[-2], logits.shape[-1]))
        return {
            "loss": F.binary_cross_entropy_with_logits(logits, truth),
            "iou": overlap(logits > 0, truth > 0),
            "foreground": truth.mean(),
        }

    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """The first frame, its motion mask, and the moving part of the frame."""
        inputs, cells = self.inputs(batch, rng)
        seen, size = visible(inputs), inputs.shape[-2:]
        moving = F.interpolate(cells[:, None].float(), size)
        return [
            ("image", batch.images),
            ("target: moving cells", 255 * moving.expand(-1, 3, -1, -1)),
            ("both", seen * (0.25 + 0.75 * moving)),
        ]


def resize_by_majority(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (B, h, w) -> float32 (B, H, W): 1 where at least half of the cells of a location are."""
    if cells.shape[-2:] == size:
        return cells.float()
    return (F.adaptive_avg_pool2d(cells.float(), size) >= 0.5).float()


def overlap(found: Tensor, truth: Tensor) -> Tensor:
    """Mean over images of intersection over union, bool (B, H, W) each; 1 where neither has any foreground."""
    both, either = ((part).sum((1, 2)).float() for part in (found & truth, found | truth))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0).mean()
