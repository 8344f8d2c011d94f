"""Colorization (Zhang et al. 2016; Doersch & Zisserman 2017): the colors of a image from its lightness."""

from __future__ import annotations

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
from ssltransfer.models.backbone import Backbone, initialize, initialize_last
from ssltransfer.models.build import build_backbone
from ssltransfer.models.normalize import Normalize
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS, PretextTask
from ssltransfer.tasks.pretext.pooled_backbone import last_map
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import accuracy

_SURVEYED_AT_ONCE = 32  # images


@PRETEXT_TASKS.register(Colorization)
class ColorizationTask(PretextTask):
    """A distribution over 313 colors for each place of the backbone's last map (protocols 1.7).

    The backbone is given (L - 50) / 50 three times. The head is that of Doersch & Zisserman: a 2x2 convolution, which
    looks right and down so that the map keeps its size, and two of 1x1. A place's target is the mean of a and b over
    the pixels that it stands for. The loss of a place is weighted by how rare its color is; a gray image teaches
    nothing and counts as a loss of zero, so that an update is the same in parts.

    Attributes:
        weights: buffer, float (313,): of each bin's places in the loss; ones until training images are surveyed.
        constant: buffer, float (): loss of the best answer that is the same for all places; ln 313 until then.
    """

    normalization: Normalize = "lab-lightness"
    weights: Tensor
    constant: Tensor

    def __init__(self, options: Colorization, backbone: BackboneOptions, seed: int, shared: Backbone | None = None):
        super().__init__()
        self.options = options
        self.backbone = shared if shared is not None else build_backbone(backbone, include_top=False, seed=seed)
        self.layer, (channels, *places) = last_map(self.backbone, options.resize, "Images")
        self.places = (places[0], places[1])
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
        """Loss of one answer for all places: what is below it has been learned from the images."""
        return float(self.constant)

    @property
    def transform(self) -> Warp:
        """The whole image squeezed to a square."""
        return Warp(self.options.resize)

    @torch.no_grad()
    def on_train_start(self, index: Index, devices: Devices) -> None:
        """Measure how often each color is, over colored images at the resolution of the targets."""
        ids = list(range(0, len(index), -(-len(index) // self.options.prior_images)))
        if devices.rank == 0:
            print(f"colors of {len(ids)} training images are measured", flush=True)
        # Row: the nearest bin; column: the bin. In float64 on the CPU: a GPU adds in any order, with other last bits.
        table = torch.zeros(len(BINS), len(BINS), dtype=torch.float64)
        keys = sequential_keys(ids[devices.rank :: devices.world], _SURVEYED_AT_ONCE)
        for batch in load_batches(index, self.val_transform, keys, seed=0, workers=devices.workers):
            code, colored = self.targets(rgb_to_lab(batch.images.to(devices.device)))
            rows = code[colored].permute(0, 2, 3, 1).flatten(0, 2).cpu().double()
            table.index_add_(0, rows.argmax(1), rows)
        table = torch.stack(devices.all_gather(table)).sum(0)
        if not table.any():  # all images are gray: nothing will be learned
            return
        if self.options.prior == "training":
            self.weights.copy_(balance(table.sum(0), uniform=self.options.prior_smoothing))
        weighted = (self.weights.cpu().double()[:, None] * table).sum(0) / (len(ids) * math.prod(self.places))
        self.constant.fill_(-torch.xlogy(weighted, weighted / weighted.sum()).sum())

    def targets(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """float (B, 3, H, W) Lab -> codes float (B, 313, h, w) of the map's places; whether a image has any color.

        The second is bool (B,).
        """
        ab = lab[:, 1:]
        options = self.options
        code = soft_code(F.adaptive_avg_pool2d(ab, self.places), neighbors=options.num_soft_bins, sigma=options.sigma)
        return code, ab.abs().amax((1, 2, 3)) > options.min_chroma

    def inputs(self, images: Tensor, rng: SampleRNG) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S) -> what the backbone is given, float (B, 3, S, S), and the images in Lab."""
        lab = rgb_to_lab(random_hflip(images, rng) if self.training else images)
        return lightness_alone(lab), lab

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy with the codes; accuracy: how often the likeliest bin is the nearest, over all places."""
        inputs, lab = self.inputs(batch.images, rng)
        logits = self.head(self.backbone(inputs, [self.layer])[self.layer]).float()
        code, colored = self.targets(lab)
        nearest = code.argmax(1)
        weight = self.weights[nearest] * colored[:, None, None]
        loss = (F.cross_entropy(logits, code, reduction="none") * weight).mean()
        return {"loss": loss, "accuracy": accuracy(logits, nearest)}

    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """Lightness, the targets' colors at a middle lightness, and both together."""
        inputs, lab = self.inputs(batch.images, rng)
        ab = decode(self.targets(lab)[0].log())
        size = lab.shape[-2:]
        blocks, smooth = F.interpolate(ab, size), F.interpolate(ab, size, mode="bilinear")
        return [
            ("image", lab_to_rgb(lab)),
            ("input: its lightness", 127.5 * (inputs + 1)),
            ("target: colors of places", lab_to_rgb(torch.cat([torch.full_like(lab[:, :1], 65), blocks], dim=1))),
            ("both, decoded", lab_to_rgb(torch.cat([lab[:, :1], smooth], dim=1))),
        ]
