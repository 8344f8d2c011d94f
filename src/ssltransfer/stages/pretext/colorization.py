"""Colorization (Zhang et al. 2016; Doersch & Zisserman 2017): the colours of a picture from its lightness."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artefacts.index import Index
from ssltransfer.config.tasks import Colorization
from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.data.ab_bins import BINS, balance, decode, soft_code
from ssltransfer.data.batches import Batch, load_batches, sequential_keys
from ssltransfer.data.device_ops import mirror_some
from ssltransfer.data.draws import Draws
from ssltransfer.data.lab import lab_to_rgb, lightness_alone, rgb_to_lab
from ssltransfer.data.transforms import Warp
from ssltransfer.models.build import build_trunk
from ssltransfer.models.normalise import Normalise
from ssltransfer.models.trunk import Trunk, initialise, initialise_last
from ssltransfer.stages.pretext.base import PretextTask
from ssltransfer.stages.pretext.pooled import last_map
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import accuracy

_SURVEYED_AT_ONCE = 32  # pictures


class ColorizationTask(PretextTask):
    """A distribution over 313 colours for each place of the trunk's last map (protocols 1.7).

    The trunk is given (L - 50) / 50 three times. The head is that of Doersch & Zisserman: a 2x2 convolution, which
    looks right and down so that the map keeps its size, and two of 1x1. A place's target is the mean of a and b over
    the pixels that it stands for. The loss of a place is weighted by how rare its colour is; a grey picture teaches
    nothing and counts as a loss of zero, so that an update is the same in parts.

    Attributes:
        weights: buffer, float (313,): of each bin's places in the loss; ones until training pictures are surveyed.
        constant: buffer, float (): loss of the best answer that is the same for all places; ln 313 until then.
    """

    rule: Normalise = "lab-lightness"
    weights: Tensor
    constant: Tensor

    def __init__(self, options: Colorization, trunk: TrunkOptions, seed: int, shared: Trunk | None = None):
        super().__init__()
        self.options = options
        self.trunk = shared if shared is not None else build_trunk(trunk, top=False, seed=seed)
        self.layer, (channels, *places) = last_map(self.trunk, options.resize, "Pictures")
        self.places = (places[0], places[1])
        self.register_buffer("weights", torch.ones(len(BINS)))
        self.register_buffer("constant", torch.tensor(math.log(len(BINS))))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            last = nn.Conv2d(options.hidden, len(BINS), 1)
            self.head = nn.Sequential(
                nn.ZeroPad2d((0, 1, 0, 1)),
                nn.Conv2d(channels, options.hidden, 2),
                nn.ReLU(inplace=True),
                nn.Conv2d(options.hidden, options.hidden, 1),
                nn.ReLU(inplace=True),
                last,
            )
            initialise(self.head)
            initialise_last(last)

    @property
    def guess(self) -> float:  # type: ignore[override]
        """Loss of one answer for all places: what is below it has been learned from the pictures."""
        return float(self.constant)

    @property
    def transform(self) -> Warp:
        """The whole picture squeezed to a square."""
        return Warp(self.options.resize)

    @torch.no_grad()
    def survey(self, index: Index, devices: Devices) -> None:
        """Measure how often each colour is, over coloured pictures at the resolution of the targets."""
        ids = list(range(0, len(index), -(-len(index) // self.options.prior_pictures)))
        if devices.rank == 0:
            print(f"colours of {len(ids)} training pictures are measured", flush=True)
        # Row: the nearest bin; column: the bin. In float64 on the CPU: a GPU adds in any order, with other last bits.
        table = torch.zeros(len(BINS), len(BINS), dtype=torch.float64)
        keys = sequential_keys(ids[devices.rank :: devices.world], _SURVEYED_AT_ONCE)
        for batch in load_batches(index, self.heldout_transform, keys, seed=0, workers=devices.workers):
            code, coloured = self.targets(rgb_to_lab(batch.pictures.to(devices.device)))
            rows = code[coloured].permute(0, 2, 3, 1).flatten(0, 2).cpu().double()
            table.index_add_(0, rows.argmax(1), rows)
        table = torch.stack(devices.gathered(table)).sum(0)
        if not table.any():  # all pictures are grey: nothing will be learned
            return
        if self.options.prior == "training":
            self.weights.copy_(balance(table.sum(0), uniform=self.options.uniform))
        weighted = (self.weights.cpu().double()[:, None] * table).sum(0) / (len(ids) * math.prod(self.places))
        self.constant.fill_(-torch.xlogy(weighted, weighted / weighted.sum()).sum())

    def targets(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """float (B, 3, H, W) Lab -> codes float (B, 313, h, w) of the map's places; whether a picture has any colour.

        The second is bool (B,).
        """
        ab = lab[:, 1:]
        options = self.options
        code = soft_code(F.adaptive_avg_pool2d(ab, self.places), neighbours=options.neighbours, sigma=options.sigma)
        return code, ab.abs().amax((1, 2, 3)) > options.least_colour

    def inputs(self, pictures: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S) -> what the trunk is given, float (B, 3, S, S), and the pictures in Lab."""
        lab = rgb_to_lab(mirror_some(pictures, draws) if self.training else pictures)
        return lightness_alone(lab), lab

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Cross-entropy with the codes; accuracy: how often the likeliest bin is the nearest, over all places."""
        inputs, lab = self.inputs(batch.pictures, draws)
        logits = self.head(self.trunk(inputs, [self.layer])[self.layer]).float()
        code, coloured = self.targets(lab)
        nearest = code.argmax(1)
        weight = self.weights[nearest] * coloured[:, None, None]
        loss = (F.cross_entropy(logits, code, reduction="none") * weight).mean()
        return {"loss": loss, "accuracy": accuracy(logits, nearest)}

    def show(self, batch: Batch, draws: Draws) -> list[tuple[str, Tensor]]:
        """Lightness, the targets' colours at a middle lightness, and both together."""
        inputs, lab = self.inputs(batch.pictures, draws)
        ab = decode(self.targets(lab)[0].log())
        size = lab.shape[-2:]
        blocks, smooth = F.interpolate(ab, size), F.interpolate(ab, size, mode="bilinear")
        return [
            ("picture", lab_to_rgb(lab)),
            ("input: its lightness", 127.5 * (inputs + 1)),
            ("target: colours of places", lab_to_rgb(torch.cat([torch.full_like(lab[:, :1], 65), blocks], dim=1))),
            ("both, decoded", lab_to_rgb(torch.cat([lab[:, :1], smooth], dim=1))),
        ]


def build(options: Colorization, trunk: TrunkOptions, seed: int, shared: Trunk | None = None) -> ColorizationTask:
    """The task with a fresh head, and a fresh trunk unless one is `shared`."""
    return ColorizationTask(options, trunk, seed, shared)
