"""Colorization (Zhang et al. 2016; Doersch & Zisserman 2017): predict the colors of an image from its lightness."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import Colorization
from ssltransfer.data.ab_bins import BINS, balance, decode, soft_code
from ssltransfer.data.device_ops import random_hflip
from ssltransfer.data.lab import lab_to_rgb, lightness_alone, rgb_to_lab
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import Warp
from ssltransfer.logs import logger
from ssltransfer.models.backbone import Backbone, initialize, initialize_last
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS, PretextTask, backbone_of
from ssltransfer.tasks.pretext.pooled_backbone import last_map
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import TrainingError, accuracy

_PRIOR_BATCH = 32  # images


@PRETEXT_TASKS.register(Colorization)
class ColorizationTask(PretextTask):
    """A distribution over 313 colors for each location of the backbone's last map (protocols 1.7).

    The input is (L - 50) / 50 in all three channels. The head is that of Doersch & Zisserman: a 2x2 convolution, padded
    at the right and at the bottom so that the map keeps its size, and two 1x1 convolutions. The target of a location is
    the mean of a and b over its pixels. The loss of a location is weighted by the rarity of its color. A gray image has
    a loss of zero, so that an update does not depend on micro-batches.

    Attributes:
        weights: buffer, float (313,): loss weight of each bin; ones until the training images are measured.
        constant: buffer, float (): loss of the best constant prediction; ln 313 until then.
    """

    weights: Tensor
    constant: Tensor

    def __init__(self, options: Colorization, backbone: BackboneOptions | Backbone, seed: int):
        super().__init__()
        self.options, self.normalization = options, options.normalization
        self.backbone = backbone_of(backbone, seed)
        self.layer, (channels, *map_size) = last_map(self.backbone, options.resize, "Images")
        self.map_size = (map_size[0], map_size[1])
        self.register_buffer("weights", torch.ones(len(BINS)))
        self.register_buffer("constant", torch.tensor(math.log(len(BINS))))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            last = nn.Conv2d(options.hidden_dim, len(BINS), 1)
            self.head = nn.Sequential(
                nn.ZeroPad2d((0, 1, 0, 1)),
                nn.Conv2d(channels, options.hidden_dim, 2),
                nn.ReLU(inplace=True),
                nn.Conv2d(options.hidden_dim, options.hidden_dim, 1),
                nn.ReLU(inplace=True),
                last,
            )
            initialize(self.head)
            initialize_last(last)

    @property
    def chance_loss(self) -> float:  # type: ignore[override]
        """Loss of the best constant prediction."""
        return float(self.constant)

    @property
    def transform(self) -> Warp:
        """The whole image resized to a square."""
        return Warp(self.options.resize)

    @torch.no_grad()
    def on_train_start(self, index: Index, devices: Devices) -> None:
        """Measure the color prior, over colored images at the resolution of the targets.

        Raises:
            TrainingError: all images are gray.
        """
        ids = list(range(0, len(index), -(-len(index) // self.options.prior_images)))
        if devices.rank == 0:
            logger.info(f"measuring the colors of {len(ids)} training images")
        # Row: the nearest bin; column: the bin. In float64 on the CPU: a GPU adds in any order, with other last bits.
        table = torch.zeros(len(BINS), len(BINS), dtype=torch.float64)
        gray = 0
        keys = sequential_keys(ids[devices.rank :: devices.world], _PRIOR_BATCH)
        for batch in load_batches(index, self.val_transform, keys, seed=0, workers=devices.workers, pin=devices.cuda):
            code, colored = self.targets(rgb_to_lab(batch.images.to(devices.device)))
            gray += int((~colored).sum())
            rows = code[colored].permute(0, 2, 3, 1).flatten(0, 2).cpu().double()
            table.index_add_(0, rows.argmax(1), rows)
        table = torch.stack(devices.all_gather(table)).sum(0)
        if not table.any():
            raise TrainingError(
                f"None of {len(ids)} images has a color above min_chroma {self.options.min_chroma:g}, so there is "
                "nothing to learn; name a dataset of color images."
            )
        gray = sum(devices.all_gather(gray))
        if gray:
            logger.info(f"{gray} of {len(ids)} images are gray and teach nothing")
        if self.options.prior == "training":
            self.weights.copy_(balance(table.sum(0), uniform=self.options.prior_smoothing))
        weighted = (self.weights.cpu().double()[:, None] * table).sum(0) / (len(ids) * math.prod(self.map_size))
        self.constant.fill_(-torch.xlogy(weighted, weighted / weighted.sum()).sum())

    def targets(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """Lab (B, 3, H, W) -> codes of the map's locations, float (B, 313, h, w), and which images have color, (B,)."""
        ab = lab[:, 1:]
        options = self.options
        code = soft_code(F.adaptive_avg_pool2d(ab, self.map_size), neighbors=options.num_soft_bins, sigma=options.sigma)
        return code, ab.abs().amax((1, 2, 3)) > options.min_chroma

    def inputs(self, images: Tensor, rng: SampleRNG) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S) -> input of the backbone, float (B, 3, S, S), and the images in Lab."""
        lab = rgb_to_lab(random_hflip(images, rng) if self.training else images)
        return lightness_alone(lab), lab

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Weighted cross-entropy with the codes; accuracy: the likeliest bin is the nearest, over all locations."""
        inputs, lab = self.inputs(batch.images, rng)
        logits = self.head(self.backbone(inputs, [self.layer])[self.layer]).float()
        code, colored = self.targets(lab)
        nearest = code.argmax(1)
        weight = self.weights[nearest] * colored[:, None, None]
        loss = (F.cross_entropy(logits, code, reduction="none") * weight).mean()
        return {"loss": loss, "accuracy": accuracy(logits, nearest)}

    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """Lightness, the target colors at a medium lightness, and both together."""
        inputs, lab = self.inputs(batch.images, rng)
        ab = decode(self.targets(lab)[0].log())
        size = lab.shape[-2:]
        blocks, smooth = F.interpolate(ab, size), F.interpolate(ab, size, mode="bilinear")
        return [
            ("image", lab_to_rgb(lab)),
            ("input: its lightness", 127.5 * (inputs + 1)),
            ("target: colors per location", lab_to_rgb(torch.cat([torch.full_like(lab[:, :1], 65), blocks], dim=1))),
            ("both, decoded", lab_to_rgb(torch.cat([lab[:, :1], smooth], dim=1))),
        ]
