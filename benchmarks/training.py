"""Training a classifier, from a raw image cache, against bare steps on a batch in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.harness import images
from benchmarks.harness.measure import OURS, Comparison, Setting, interleave
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.config.backbones import BackboneOptions, CaffeNet, ResNet50, Vgg16
from ssltransfer.config.entities import Student
from ssltransfer.config.formats import CacheOptions
from ssltransfer.planning.networks import flops
from ssltransfer.stages import cache
from ssltransfer.tasks.supervised import Classifier
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.fit import fit
from ssltransfer.training.train_step import build_optimizer

DEVICES = ("cpu", "cuda")
GOAL = 0.9
CLASSES, DRAWN = 1000, 512
BARE = "bare steps"


def run(setting: Setting) -> Iterator[Comparison]:
    """Ours augments on the device, reads the learning rate, keeps a curve and looks for signals besides."""
    path = images.draw(setting.folder, setting.size(DRAWN, 32))
    cache.run(CacheOptions(format="raw"), data=path, output=setting.folder / "raw.parquet", threads=setting.threads)
    index = read_index(setting.folder / "raw.parquet")
    backbones: tuple[BackboneOptions, ...] = (CaffeNet(width_mult=0.125) if setting.small else CaffeNet(),)
    if setting.device == "cuda":
        backbones += (Vgg16(), ResNet50())
    for backbone in backbones:
        yield _compared(setting, backbone, index)


def _compared(setting: Setting, backbone: BackboneOptions, index: Index) -> Comparison:
    batch, steps = (256, 100) if setting.device == "cuda" else (setting.size(64, 8), setting.size(20, 2))
    spec = Student.model_validate(
        {
            "method": "supervised",
            "data": "d",
            "backbone": backbone,
            "schedule": {"steps": steps, "batch_size": batch, "lr": 1e-4},
        }
    )
    devices = plan_devices(setting.threads)
    index = index.with_labels(np.arange(len(index), dtype=np.int32) % CLASSES, [str(label) for label in range(CLASSES)])
    task = Classifier(spec, CLASSES)
    optimizer = build_optimizer(task, spec.schedule)
    resident = torch.rand(batch, 3, backbone.img_size, backbone.img_size, device=setting.device)
    resident = resident.contiguous(memory_format=torch.channels_last)
    target = torch.arange(batch, device=setting.device) % CLASSES
    turn = iter(range(10**6))

    def ours() -> float:
        folder = setting.folder / "fits" / f"{backbone.name}-{next(turn)}"
        fitted = fit(task, index, spec.schedule, seed=0, folder=folder, devices=devices)
        return steps * batch / float(fitted.measured["images_per_second"])

    def bare() -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with devices.autocast():
                loss = F.cross_entropy(task.head(task.backbone(resident)[task.backbone.layers[-1]]), target)
            loss.backward()
            optimizer.step()

    samples = interleave({OURS: ours, BARE: bare}, setting.rounds)
    case = f"{backbone.slug}, {steps} steps of {batch}, {setting.threads} threads"
    work = steps * batch
    paces = {f"training/{backbone.name}": (BARE, 3 * flops(backbone, include_top=True) * work)}
    return Comparison(case, work, "images", samples, {BARE: GOAL}, paces=paces)
