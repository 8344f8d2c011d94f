"""One of the processes of test_ddp.py: trains each case and saves the result.

Arguments: index of training images, index of validation images, folder. Or: resumed, index of training images, folder.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.index import read_index
from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.schedule import Schedule
from ssltransfer.config.tasks import Colorization, Exemplar, JigsawKolesnikov, JigsawPP
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.tasks.pretext.colorization import ColorizationTask
from ssltransfer.tasks.pretext.exemplar import ExemplarTask
from ssltransfer.tasks.pretext.jigsaw_kolesnikov import JigsawKolesnikovTask
from ssltransfer.tasks.pretext.jigsawpp import JigsawPPTask
from ssltransfer.training import curve as module
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.fit import fit
from ssltransfer.training.launch import shutdown
from ssltransfer.training.task import Task, TrainingError


class Nine(Task):
    """Nine classes, with random numbers per image, an unused layer, and norms and dropout as an option.

    Args:
        norm: with batch norms.
        dropout: probability.
        sometimes: with a layer that only some processes use, in some steps.
    """

    chance_loss = math.log(9)

    def __init__(self, *, norm: bool, dropout: float, sometimes: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Sequential(nn.Linear(8 * 36, 16), nn.BatchNorm1d(16) if norm else nn.Tanh(), nn.Linear(16, 9))
        self.unused = nn.Linear(3, 3)
        self.sometimes = nn.Linear(9, 9) if sometimes else None
        self.seen: list[list[int]] = []

    @property
    def transform(self) -> ResizeCenterCrop:
        return ResizeCenterCrop(8, 8)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        if self.training:
            self.seen.append(batch.ids.tolist())
        x = batch.images.float() / 255 + 0.1 * rng.normal("noise", 1)[:, :, None, None]
        logits = self.last(self.dropout(self.norm(self.first(x))).flatten(1))
        if self.sometimes is not None and int(batch.ids[0]) % 2:
            logits = logits + self.sometimes(logits)
        target = batch.ids % 9
        return {"loss": F.cross_entropy(logits, target), "right": (logits.argmax(1) == target).float().mean()}


BACKBONE = CaffeNet(width_mult=0.125, img_size=48, stem_stride=2)


def puzzles() -> Task:
    tiles = {"crop": 60, "tile": 16, "jitter": 3, "channel_shift": 1, "stem_stride": 1}
    given = {"permutations": 8, "tiles": tiles, "resize": 60, "hidden_dim": 64, "dropout": 0.0}
    return JigsawPPTask(JigsawPP.model_validate(given), BACKBONE, 0)


def patches() -> Task:
    tiles = {"crop": 60, "tile": 16, "jitter": 4, "channel_shift": 0, "stem_stride": 1}
    given = {"permutations": 8, "permutations_per_image": 4, "tiles": tiles, "resize": 66, "hidden_dim": 64}
    given |= {"embed_dim": 16, "dropout": 0.0}
    return JigsawKolesnikovTask(JigsawKolesnikov.model_validate(given), BACKBONE, 0)


def exemplar() -> Task:
    return ExemplarTask(Exemplar(num_views=3, embed_dim=16), BACKBONE, 0)


def colors() -> Task:
    return ColorizationTask(
        Colorization(resize=48, hidden_dim=16), CaffeNet(width_mult=0.125, img_size=48, stem_stride=2), 0
    )


def schedule(**kw: object) -> Schedule:
    return Schedule.model_validate({"steps": 6, "batch_size": 16, "lr": 0.05, **kw})


PLAIN = {"norm": False, "dropout": 0.0}
NORM = {"norm": True, "dropout": 0.0}
CASES: dict[str, tuple[dict[str, Any], Schedule]] = {
    "plain": (PLAIN, schedule()),
    "accumulated": (PLAIN, schedule(micro_batch_size=4)),
    "clipped": (PLAIN, schedule(clip_grad_norm=0.05, optimizer="adam")),
    "half": (PLAIN, schedule(precision="bfloat16")),
    "synced": (NORM, schedule(sync_bn=True)),
    "shares": (NORM, schedule()),
    "dropout": ({"norm": False, "dropout": 0.5}, schedule(steps=2)),
    "pairs": ({"task": puzzles}, schedule()),
    "patches": ({"task": patches}, schedule(sync_bn=True)),
    "views": ({"task": exemplar}, schedule(micro_batch_size=8)),
    "surveyed": ({"task": colors}, schedule()),
    "odd": (PLAIN, schedule(batch_size=10)),
    "broken": (PLAIN, schedule(lr=1e30)),
}
LAW: dict[str, object] = {"batch_size": 48, "steps": 9, "micro_batch_size": 4}
RESUMED = {
    "sync-bn": ({"norm": True, "dropout": 0.3}, schedule(sync_bn=True, **LAW)),
    "sometimes": ({"norm": True, "dropout": 0.3, "sometimes": True}, schedule(optimizer="adam", **LAW)),
}


class CutOff(TrainingError):
    """Ends a training in the middle."""


def resumed(train: Path, folder: Path) -> None:
    """Train each case of RESUMED twice, once with an interruption after step 7, and save the weights."""
    devices = plan_devices(1)
    os.environ["SSLTRANSFER_CHECKPOINT_STEPS"] = "2"
    for name, (options, how) in RESUMED.items():
        for cut in (False, True):
            place = folder / f"{name}-cut" if cut else folder / f"{name}-whole"
            place.mkdir(parents=True, exist_ok=True)
            if cut:
                task = Nine(**options)  # type: ignore[arg-type]
                task.after_step = cut_off  # type: ignore[method-assign]
                with contextlib.suppress(CutOff):
                    fit(task, read_index(train), how, seed=5, folder=place, devices=devices)
            task = Nine(**options)  # type: ignore[arg-type]
            curve = fit(task, read_index(train), how, seed=5, folder=place, devices=devices).curve
            state = {"weights": task.state_dict(), "curve": curve, "seen": len(task.seen)}
            torch.save(state, place.parent / f"{place.name}-{devices.rank}.pt")
    shutdown()


def cut_off(step: int) -> None:
    """After step 7."""
    if step == 7:
        raise CutOff("cut off")


def main(train: Path, val: Path, folder: Path) -> None:
    devices = plan_devices(1)
    assert devices.device.type == "cpu"
    for name, (options, how) in CASES.items():
        module.ROWS = 6
        make = options.get("task")
        task = make() if callable(make) else Nine(**options)
        (folder / name).mkdir(parents=True, exist_ok=True)
        said, curve = "", []
        try:
            fitted = fit(
                task, read_index(train), how, seed=5, folder=folder / name, devices=devices, val=read_index(val)
            )
            curve = fitted.curve
        except TrainingError as error:
            said = str(error)
        state = {"weights": task.state_dict(), "curve": curve, "seen": getattr(task, "seen", []), "said": said}
        torch.save(state, folder / f"{name}-{devices.rank}.pt")
    shutdown()


if __name__ == "__main__":
    os.environ.setdefault("SSLTRANSFER_WORKERS", "0")
    if sys.argv[1] == "resumed":
        resumed(*map(Path, sys.argv[2:]))
    else:
        main(*map(Path, sys.argv[1:]))
