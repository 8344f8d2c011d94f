"""Motion segmentation: the question, its head, its laws, and that it is learned from the world's clips."""

from __future__ import annotations

import multiprocessing
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.config.backbones import BackboneOptions, CaffeNet, ResNet18, ResNet50V2, ResNet101V2
from ssltransfer.config.entities import Pretext
from ssltransfer.config.formats import MotionOptions, Video
from ssltransfer.config.schedule import Schedule
from ssltransfer.config.tasks import MotionSegmentation
from ssltransfer.data.loader import Batch, load_batches, sequential_keys, training_keys
from ssltransfer.data.targets import read_target
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.layer_mix import MixedBackbone
from ssltransfer.stages import index as index_stage
from ssltransfer.stages import motion
from ssltransfer.tasks.pretext.motion_segmentation import MotionSegmentationTask, overlap, resize_by_majority
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import fit
from ssltransfer.training.train_step import Trainer
from tests.helpers import HELPERS
from tests.helpers.small_tasks import train_step
from toyworld import generate

CPU = Devices(torch.device("cpu"), 0)
LABELS = MotionOptions(size=(96, 128), clip_stride=2, foreground_range=(0.01, 0.9))
TINY = MotionSegmentation(input=(96, 128), hidden_dim=32)
SMALL = CaffeNet(width_mult=0.125, img_size=48, stem_stride=2, bn=True)


def labeled(folder: Path, split: str, films: int) -> Path:
    generate("clips", folder / "world", split=split, num_images=films, size=48)
    index_stage.run(Video(root=str(folder / "world"), split=split), output=folder / f"v-{split}.parquet", threads=1)
    motion.run(LABELS, data=folder / f"v-{split}.parquet", output=folder / f"{split}.parquet", threads=1)
    return folder / f"{split}.parquet"


@pytest.fixture(scope="module")
def clips_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of each of eight films."""
    return labeled(tmp_path_factory.mktemp("clips"), "train", 8)


@pytest.fixture(scope="module")
def clips(clips_path: Path) -> Index:
    return read_index(clips_path)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batch_of(task: MotionSegmentationTask, index: Index, n: int = 8, workers: int = 0) -> Batch:
    return next(load_batches(index, task.transform, sequential_keys(range(n), n), seed=0, workers=workers))


def test_motion_batch_has_frames_and_maps(clips: Index):
    batch = batch_of(MotionSegmentationTask(TINY, SMALL, 0), clips)
    assert batch.images.shape == (8, 3, 96, 128) and batch.images.dtype == torch.uint8
    assert batch.targets["motion"].shape == (8, 12, 16)
    for row, sample in enumerate(batch.ids.tolist()):
        assert np.array_equal(batch.targets["motion"][row].numpy(), read_target(clips, sample))  # type: ignore[arg-type]


def test_motion_segmentation_has_the_published_sizes(clips: Index):
    """240x320 at output stride 8 are 30x40 cells; two convolutions of 4096 channels and one of one."""
    options = MotionSegmentation()
    task = MotionSegmentationTask(options, ResNet101V2(width_mult=0.125), 0)
    assert task.layer == "block3"
    with torch.no_grad():
        maps = task.eval().backbone(torch.zeros(1, 3, 240, 320), ["block3"])["block3"]
    assert maps.shape[-2:] == (30, 40)
    convolutions = [part for part in task.head if isinstance(part, torch.nn.Conv2d)]
    assert [tuple(part.weight.shape) for part in convolutions] == [
        (4096, maps.shape[1], 1, 1),
        (4096, 4096, 1, 1),
        (1, 4096, 1, 1),
    ]
    assert (options.input, MotionOptions().size) == ((240, 320), (240, 320))


@pytest.mark.parametrize("backbone", [SMALL, ResNet18(width_mult=0.125)], ids=lambda t: t.name)
def test_motion_segmentation_starts_at_chance(backbone: BackboneOptions, clips: Index):
    task = MotionSegmentationTask(TINY, backbone, 0)
    batch = batch_of(task, clips, 4)
    values = task(batch, batch.rng(0))
    assert abs(values["loss"].item() - task.chance_loss) < 0.1 and set(values) == {"loss", "iou", "foreground"}
    values["loss"].backward()
    gradient = task.backbone.get_parameter("conv1.weight").grad
    assert gradient is not None and gradient.abs().max() > 0 and torch.isfinite(gradient).all()


def test_motion_segmentation_loss_is_binary_cross_entropy(clips: Index):
    task = MotionSegmentationTask(TINY, ResNet101V2(width_mult=0.125), 0).eval()
    torch.nn.init.normal_(task.head[-1].get_parameter("weight"), std=0.5)
    batch = batch_of(task, clips, 3)
    with torch.no_grad():
        values = task(batch, batch.rng(0))
        inputs, cells = task.inputs(batch, batch.rng(0))
        p = task.head(task.backbone(inputs, ["block3"])["block3"]).sigmoid()[:, 0].double().numpy()
    y = cells.numpy()
    assert p.shape == y.shape == (3, 12, 16)
    assert float(values["loss"]) == pytest.approx(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(), rel=1e-4)
    found = [((a > 0.5) & (b > 0)).sum() / ((a > 0.5) | (b > 0)).sum() for a, b in zip(p, y, strict=True)]
    assert float(values["iou"]) == pytest.approx(np.mean(found), rel=1e-5)
    assert float(values["foreground"]) == pytest.approx(y.mean(), rel=1e-5)


def test_motion_targets_are_resized_by_majority():
    cells = torch.tensor([[[1, 1, 0, 0], [0, 0, 0, 1]]], dtype=torch.uint8)
    assert resize_by_majority(cells, (1, 2)).tolist() == [[[1.0, 0.0]]]
    assert torch.equal(resize_by_majority(cells, (4, 8)), cells.float().repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert torch.equal(resize_by_majority(cells, (2, 4)), cells.float())
    nothing = torch.zeros(2, 3, 3, dtype=torch.bool)
    some = nothing.clone()
    some[1, 0] = True
    assert float(overlap(nothing, nothing)) == 1 and float(overlap(some, nothing)) == 0.5


def test_motion_segmentation_flips_image_and_map(clips: Index):
    task = MotionSegmentationTask(TINY, SMALL, 0)
    batch = batch_of(task, clips)
    plain = replace(batch, epochs=batch.epochs)
    inputs, cells = task.inputs(plain, batch.rng(3))
    still, truth = task.eval().inputs(batch, batch.rng(3))
    assert torch.equal(truth, batch.targets["motion"])
    mirrored = [not torch.equal(a, b) for a, b in zip(inputs, still, strict=True)]
    assert 0 < sum(mirrored) < len(batch)
    for row, flipped in enumerate(mirrored):
        assert torch.allclose(inputs[row], still[row].flip(-1) if flipped else still[row])
        assert torch.equal(cells[row], truth[row].flip(-1) if flipped else truth[row])
    without = MotionSegmentationTask(TINY.model_copy(update={"hflip": False}), SMALL, 0)
    assert torch.equal(without.inputs(batch, batch.rng(3))[0], still)


def test_motion_segmentation_ignores_workers_and_micro_batches(clips: Index):
    task = MotionSegmentationTask(TINY, SMALL, 0)
    keys = list(training_keys(len(clips), 8, 1, 3, seed=9))
    runs = []
    for workers in (0, 2):
        batches = list(load_batches(clips, task.transform, iter(keys), seed=9, workers=workers))
        runs.append([(batch.images, batch.targets["motion"]) for batch in batches])
    assert all(torch.equal(a, b) for one, other in zip(*runs, strict=True) for a, b in zip(one, other, strict=True))
    found = []
    for micro in (None, 4):
        task = MotionSegmentationTask(TINY, SMALL.model_copy(update={"bn": False}), 0)
        batch = batch_of(task, clips)
        schedule = Schedule(steps=1, batch_size=8, lr=0.1, micro_batch_size=micro)
        found.append(train_step(Trainer(task, schedule, 0, CPU), batch))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_motion_segmentation_trains_a_shared_backbone():
    backbone = build_backbone(SMALL, include_top=False, seed=5)
    task = MotionSegmentationTask(TINY, backbone, 0)
    assert task.backbone is backbone and MotionSegmentation.supports_multi_task
    mixed = MixedBackbone(build_backbone(ResNet101V2(width_mult=0.125), include_top=False))
    assert MotionSegmentationTask(TINY, mixed, 0).layer == "block3" and mixed.training
    embedding = MotionSegmentationTask(TINY, ResNet50V2(width_mult=0.125, embed_dim=8), 0)
    assert embedding.layer == "block4"  # not the vector after it
    alone = MotionSegmentationTask(TINY, SMALL, 0)
    assert all(torch.equal(a, b) for a, b in zip(task.head.parameters(), alone.head.parameters(), strict=True))


def test_motion_segmentation_refuses_errors(objects: Index):
    task = MotionSegmentationTask(TINY, SMALL, 0)
    with pytest.raises(ArtifactError, match="has no motion masks; name a dataset of format video"):
        batch_of(task, objects)
    with pytest.raises(LayerError, match="Images of 32 x 32 pixels are too small for caffenet"):
        MotionSegmentationTask(
            MotionSegmentation(input=(32, 32), hidden_dim=8), CaffeNet(width_mult=0.125, stem_stride=8), 0
        )


@pytest.mark.parametrize("backbone", [SMALL, ResNet101V2(width_mult=0.125)], ids=lambda t: t.name)
def test_motion_segmentation_overfits_a_few_clips(backbone: BackboneOptions, clips: Index):
    """Far below what the share of the foreground alone would give."""
    task = MotionSegmentationTask(TINY.model_copy(update={"hflip": False}), backbone, 0)
    steps = 25
    schedule = Schedule(steps=steps, batch_size=4, lr=0.004, optimizer="adam", weight_decay=0.0)
    trainer = Trainer(task, schedule, 0, CPU)
    batch = batch_of(task, clips, 4)
    values = [train_step(trainer, batch) for _ in range(steps)]
    share = values[-1]["foreground"]
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert values[-1]["loss"] < 0.7 * entropy < task.chance_loss and values[-1]["iou"] > 0.5


@pytest.mark.slow
def test_motion_segmentation_generalizes(tmp_path: Path):
    """On films that were not seen the loss falls below the entropy of their share of foreground."""
    train, test = (read_index(labeled(tmp_path, split, n)) for split, n in (("train", 100), ("val", 16)))
    task = MotionSegmentationTask(TINY, CaffeNet(width_mult=0.25, img_size=48, stem_stride=2, bn=True), 0)
    schedule = Schedule(steps=120, batch_size=16, lr=0.002, optimizer="adam", weight_decay=1e-3, lr_schedule="cosine")
    found = fit(task, train, schedule, seed=0, folder=tmp_path, devices=CPU, val=test).summary(task.chance_loss)
    share = found["val_foreground"]
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    print({key: round(value, 3) for key, value in found.items()}, "entropy", round(entropy, 3))
    assert found["val_loss"] < entropy < task.chance_loss and found["val_iou"] > share


SPEC = Pretext.model_validate(
    {
        "task": {"name": "motion-segmentation", "input": [96, 128], "hidden_dim": 16},
        "backbone": {"name": "caffenet", "width_mult": 0.125, "img_size": 48, "stem_stride": 2, "bn": True},
        "data": "x",
        "val": "y",
        "schedule": {"steps": 5, "batch_size": 6, "lr": 0.02},
    }
)


def trained(folder: Path, data: Path, moment: str = "") -> int | None:
    folder.mkdir(exist_ok=True)
    given = {"spec": SPEC.canonical(), "data": str(data), "val": str(data), "every": "2" if moment else "0"}
    given |= {"output": str(folder / "manifest.json"), "log": str(folder / "log"), "moment": moment}
    process = multiprocessing.get_context("forkserver").Process(
        target=runpy.run_path, args=(str(HELPERS / "killed_pretext.py"), given | {"count": 3})
    )
    process.start()
    process.join(120)
    return process.exitcode


def test_motion_segmentation_resumes_with_the_same_bytes(clips_path: Path, tmp_path: Path):
    assert trained(tmp_path / "undisturbed", clips_path) == 0
    assert trained(tmp_path / "killed", clips_path, "step") == -9
    assert trained(tmp_path / "killed", clips_path) == 0
    for name in ("backbone.safetensors", "curve.jsonl", "manifest.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_overlap_matches_worked_example():
    """Cells 0 and 1 are found, 1 and 2 are true: one of three in common."""
    found, truth = (torch.tensor([[cells]], dtype=torch.bool) for cells in ([1, 1, 0, 0], [0, 1, 1, 0]))
    assert overlap(found, truth).item() == pytest.approx(1 / 3)
