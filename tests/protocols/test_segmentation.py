"""FCN-32s on the embedded world: what is measured, what learns, and that nothing but the spec decides it."""

from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.artifacts.metrics import Metrics, read_metrics
from ssltransfer.config.backbones import BackboneOptions, CaffeNet, ResNet18
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.formats import Voc
from ssltransfer.config.protocols import Segmentation
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.data.targets import read_target
from ssltransfer.models.weights import read_model
from ssltransfer.protocols.segmentation import SegmentationTask, class_frequencies, colored, mask_of, with_layers
from ssltransfer.stages.evaluate import run
from ssltransfer.stages.index import run as make_index
from ssltransfer.training.devices import Devices
from tests.helpers.protocol_inputs import context_of, make_model

CPU = Devices(torch.device("cpu"), 0)
SMALL = CaffeNet(width_mult=0.125, img_size=64, stem_stride=2)
SHORT = Schedule(steps=4, batch_size=4, micro_batch_size=1, lr=0.01, bias_lr_mult=2.0, decay_norm_and_bias=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), SMALL, include_top=False, seed=1)


def tuned(model: Path, train: str = "all", classes: int = 21) -> SegmentationTask:
    options = Segmentation(trainable=train, padding=40)
    return SegmentationTask(with_layers(read_model(model), 0), options, np.full(classes, 1 / classes))


def batch_of(index: Index, samples: list[int], task: SegmentationTask) -> Batch:
    return next(load_batches(index, task.transform, sequential_keys(samples, len(samples)), seed=0))


def test_options_match_published_constants() -> None:
    options = Segmentation()
    schedule = options.schedule
    assert (schedule.steps, schedule.batch_size, schedule.micro_batch_size) == (150_000, 20, 1)
    assert (schedule.momentum, schedule.weight_decay, schedule.bias_lr_mult) == (0.9, 5e-4, 2.0)
    assert (options.padding, options.dropout, options.trainable) == (100, 0.5, "all")
    rates = [schedule.lr_at(step, 8498) for step in (0, 49_999, 50_000, 99_999, 100_000, 149_999)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6])


@pytest.mark.parametrize(
    ("train", "learning"),
    [("all", {"backbone", "head", "score"}), ("fc6-8", {"head", "score"}), ("score", {"score"})],
)
def test_task_trains_chosen_layers(model: Path, train: str, learning: set[str]) -> None:
    task = tuned(model, train)
    found = {name.split(".")[1] for name, p in task.named_parameters() if p.requires_grad}
    assert found == learning
    dropped = [part for part in task.train().network.head if isinstance(part, nn.Dropout) and part.training]
    assert len(dropped) == 2 and all(part.p == 0.5 for part in dropped)


def test_task_starts_from_model_or_fresh_fc(model: Path, tmp_path: Path) -> None:
    full = make_model(tmp_path / "full", SMALL, seed=1)
    given = read_model(full).backbone.state_dict()
    kept = tuned(full).network
    assert torch.equal(kept.get_parameter("head.4.weight").flatten(1), given["fc7.weight"])
    assert torch.equal(kept.get_parameter("head.1.weight").flatten(1), given["fc6.weight"])
    fresh = [with_layers(read_model(model), seed).backbone.state_dict() for seed in (0, 0, 1)]
    assert torch.equal(fresh[0]["fc6.weight"], fresh[1]["fc6.weight"])
    assert not torch.equal(fresh[0]["fc6.weight"], fresh[2]["fc6.weight"])
    assert all(
        torch.equal(one["conv3.weight"], read_model(model).backbone.state_dict()["conv3.weight"]) for one in fresh
    )


def test_task_freezes_batch_norm_statistics(tmp_path: Path, masks: tuple[Path, Path]) -> None:
    task = tuned(make_model(tmp_path / "r", ResNet18(width_mult=0.125, img_size=64), include_top=False, seed=1)).train()
    norms = {name: part for name, part in task.named_modules() if isinstance(part, nn.BatchNorm2d)}
    before = {name: part.running_mean.clone() for name, part in norms.items()}  # type: ignore[union-attr]
    nn.init.normal_(task.network.score.weight, std=0.1)
    batch = batch_of(read_index(masks[0]), [0, 1], task)
    task(batch, batch.rng(0))["loss"].backward()
    for name, part in norms.items():
        assert not part.training and part.running_mean is not None
        assert torch.equal(part.running_mean, before[name]) and part.weight.grad is not None, name


def test_loss_ignores_padding(model: Path, masks: tuple[Path, Path]) -> None:
    index = read_index(masks[0])
    task = tuned(model).eval()
    nn.init.normal_(task.network.score.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    sizes = index.sizes.tolist()
    samples = [0, next(s for s in range(len(index)) if sizes[s] != sizes[0]), 5]
    both = batch_of(index, samples, task)
    assert len({tuple(size) for size in both.sizes.tolist()}) > 1, "images of different sizes"
    wanted = []
    with torch.no_grad():
        for sample in samples:
            one = batch_of(index, [sample], task)
            mask = read_target(index, sample)
            assert isinstance(mask, np.ndarray) and (mask == 255).any()
            logits = task.network(_prepared(one.images))[0].double().numpy()
            p = np.exp(logits - logits.max(0)) / np.exp(logits - logits.max(0)).sum(0)
            rows, columns = np.nonzero(mask != 255)
            wanted.append(-np.log(p[mask[rows, columns], rows, columns]).mean())
            assert float(task(one, one.rng(0))["loss"]) == pytest.approx(wanted[-1], rel=1e-4)
        found = float(task(both, both.rng(0))["loss"])
        parts = [float(task(part, part.rng(0))["loss"]) for part in both.split(1)]
    assert found == pytest.approx(np.mean(wanted), rel=1e-4) == pytest.approx(np.mean(parts), rel=1e-4)


def _prepared(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (images.float() / 255 - mean) / std


def test_loss_ignores_void_pixels(model: Path, masks: tuple[Path, Path]) -> None:
    task = tuned(model).eval()
    nn.init.normal_(task.network.score.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    batch = batch_of(read_index(masks[0]), [0], task)
    mask = batch.targets["mask"]
    logits = task.network(_prepared(batch.images)).detach()
    void = torch.zeros_like(mask, dtype=torch.bool)
    void[:, :, mask.shape[-1] // 2 :] = True
    half = replace(batch, targets={**batch.targets, "mask": mask.masked_fill(void, 255)})
    counted = ~void & (mask != 255)
    wanted = F.cross_entropy(logits.permute(0, 2, 3, 1)[counted], mask[counted].long())
    with torch.no_grad():
        assert float(task(half, half.rng(0))["loss"]) == pytest.approx(float(wanted), rel=1e-4)


def test_chance_loss_is_entropy_of_class_frequencies(model: Path, masks: tuple[Path, Path]) -> None:
    index = read_index(masks[0]).subset(np.arange(6))
    parts = class_frequencies(index, "a", ["background", *index.classes])
    assert parts.sum() == pytest.approx(1)
    task = SegmentationTask(with_layers(read_model(model), 0), Segmentation(padding=40), parts).eval()
    losses = []
    for sample in range(6):
        mask = mask_of(index, sample).long()
        logits = torch.from_numpy(np.log(np.maximum(parts, 1e-30))).view(21, 1, 1).expand(-1, *mask.shape)
        losses.append(float(F.cross_entropy(logits[None], mask[None], ignore_index=255)))
    assert np.mean(losses) == pytest.approx(task.chance_loss, rel=1e-5)


def test_transform_keeps_image_and_mask(masks: tuple[Path, Path], model: Path) -> None:
    index = read_index(masks[0])
    image = torch.zeros(3, 5, 7, dtype=torch.uint8)
    pair = tuned(model).transform(index, 3, image, Random(0))
    mask = read_target(index, 3)
    assert isinstance(mask, np.ndarray)
    assert pair["image"] is image and np.array_equal(pair["mask"].numpy(), mask)


def measured(folder: Path, model: Path, masks: tuple[Path, Path], **changes: object) -> Metrics:
    given = {"padding": 40, "schedule": SHORT} | changes
    spec = EvaluationSpec(protocol=Segmentation(**given), train="a", test="b")
    run(spec, model=model, train=masks[0], test=masks[1], output=folder / "seg" / "m.json", threads=1)
    return read_metrics(folder / "seg" / "m.json")


def test_evaluate_is_reproducible(model: Path, masks: tuple[Path, Path], tmp_path: Path) -> None:
    found = measured(tmp_path / "one", model, masks)
    measured(tmp_path / "two", model, masks)
    assert (tmp_path / "one/seg/m.json").read_bytes() == (tmp_path / "two/seg/m.json").read_bytes()
    index = read_index(masks[1])
    truth = np.concatenate([mask_of(index, sample).numpy().ravel() for sample in range(len(index))])
    matrix = np.array(found.details["confusion"])
    assert matrix.sum(1).tolist() == [int((truth == c).sum()) for c in range(21)]
    assert found.details["classes"][0] == "background" and len(found.details["classes"]) == 21
    named = [iou for iou in found.details["per_class"].values() if iou is not None]
    assert found.primary_metric == "miou" and found.values["miou"][0] == pytest.approx(np.mean(named), abs=1e-4)
    assert set(found.values) == {"miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"}
    nowhere = [name for name, iou in found.details["per_class"].items() if iou is None]
    assert found.details["classes_ignored_in_mean"] == nowhere
    there = np.unique(truth[truth != 255])
    assert found.chance == pytest.approx(100 * (truth == 0).sum() / (truth != 255).sum() / len(there), abs=1e-4)
    drawn = found.details["drawn"]
    assert len(drawn) == 6
    for one in drawn:
        assert len(one["uri"]) < 40_000
        image = Image.open(io.BytesIO(base64.b64decode(one["uri"].split(",")[1])))
        assert image.height <= 120 and image.width > image.height
    assert found.details["lines"][0]["series"]["training"][0][-1] == 4


def test_confusion_is_independent_of_order(model: Path, masks: tuple[Path, Path], tmp_path: Path) -> None:
    index = read_index(masks[1]).subset(np.arange(8))
    task = tuned(model).eval()
    nn.init.normal_(task.network.score.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    whole, drawn = task.evaluate(context_of(task.options, index, index, tmp_path))
    reversed_index = index.subset(np.arange(8)[::-1])
    back, _ = task.evaluate(context_of(task.options, index, reversed_index, tmp_path))
    assert np.array_equal(whole, back) and len(drawn) == 6
    assert drawn[0]["title"].startswith(Path(index.paths[0]).stem)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A red or a blue block on gray noise, aeroplane and bus, in images of several shapes."""
    root = tmp_path_factory.mktemp("blocks")
    kit = root / "VOC2007"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (kit / folder).mkdir(parents=True)
    rng = np.random.default_rng(5)
    for split, n in (("train", 48), ("val", 16)):
        for number in range(n):
            height, width = rng.choice([64, 72, 80], 2)
            pixels = rng.integers(90, 160, (height, width, 3)).astype(np.uint8)
            mask = np.zeros((height, width), np.uint8)
            side, kind = int(rng.integers(28, 48)), int(rng.integers(2))
            top, left = int(rng.integers(height - side)), int(rng.integers(width - side))
            mask[top : top + side, left : left + side] = 255
            mask[top + 1 : top + side - 1, left + 1 : left + side - 1] = (1, 6)[kind]
            pixels[mask > 0] = ((220, 40, 40), (40, 40, 220))[kind] + rng.integers(-30, 30, ((mask > 0).sum(), 3))
            Image.fromarray(pixels).save(kit / "JPEGImages" / f"{split}{number}.jpg", quality=95)
            Image.fromarray(mask).save(kit / "SegmentationClass" / f"{split}{number}.png")
        names = "".join(f"{split}{number}\n" for number in range(n))
        (kit / "ImageSets/Segmentation" / f"{split}.txt").write_text(names)
        make_index(Voc(root=str(root), split=split, targets="masks"), output=root / f"{split}.parquet", threads=1)
    return root / "train.parquet", root / "val.parquet"


@pytest.mark.parametrize(
    "options", [SMALL, ResNet18(width_mult=0.125, img_size=64, stem_stride=1)], ids=lambda o: o.name
)
def test_evaluate_finds_blocks(
    options: BackboneOptions, blocks: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ssltransfer")
    schedule = Schedule(steps=60, batch_size=4, micro_batch_size=1, lr=0.002, milestones=(45,), optimizer="adam")
    found = measured(
        tmp_path, make_model(tmp_path / "m", options, include_top=False, seed=1), blocks, schedule=schedule
    )
    print(options.slug, {name: values[0] for name, values in found.values.items()}, "chance", found.chance)
    assert found.chance is not None and found.chance < 35 and found.mean() > 60
    assert set(found.details["unseen_classes"]) == set(found.details["classes"]) - {"background", "aeroplane", "bus"}
    assert "no pixel of bicycle, bird" in caplog.text
    assert found.details["classes_ignored_in_mean"] and found.details["per_class"]["dog"] is None


@pytest.mark.slow
def test_evaluate_beats_chance(masks: tuple[Path, Path], tmp_path: Path) -> None:
    model = make_model(
        tmp_path / "m", ResNet18(width_mult=0.125, img_size=64, stem_stride=1), include_top=False, seed=1
    )
    schedule = Schedule(steps=300, batch_size=8, micro_batch_size=1, lr=0.003, milestones=(240,), optimizer="adam")
    found = measured(tmp_path, model, masks, schedule=schedule)
    print({name: values[0] for name, values in found.values.items()}, "chance", found.chance)
    assert found.chance is not None and found.mean() > 1.4 * found.chance
    losses = found.details["lines"][0]["series"]["training"][1]
    assert losses[-1] < 0.5 * found.details["chance_loss"]


def test_evaluate_with_fused_bn_and_data_dependent_init(
    masks: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ssltransfer")
    model = make_model(
        tmp_path / "m", CaffeNet(width_mult=0.125, img_size=64, stem_stride=2, bn=True), include_top=False, seed=1
    )
    measured(tmp_path, model, masks, fuse_bn=True, data_dependent_init=True)
    assert "5 batch norms fused" in caplog.text and "layers rescaled by 72 images" in caplog.text


def test_killed_run_resumes_to_same_bytes(model: Path, masks: tuple[Path, Path], tmp_path: Path) -> None:
    schedule = SHORT.model_copy(update={"steps": 12})
    measured(tmp_path / "quiet", model, masks, schedule=schedule)
    spec = EvaluationSpec(protocol=Segmentation(padding=40, schedule=schedule), train="a", test="b")
    output = tmp_path / "killed" / "seg" / "m.json"
    command = [sys.executable, "-m", "ssltransfer.cli", "evaluate", "--spec", spec.canonical(), "--threads", "1"]
    for key, path in {"model": model, "train": masks[0], "test": masks[1], "output": output}.items():
        command += [f"--{key}", str(path)]
    process = subprocess.Popen(command, env=os.environ | {"SSLTRANSFER_CHECKPOINT_STEPS": "2"})
    while process.poll() is None:
        if any(output.parent.glob("work/m/*/seed-0/checkpoint.pt")):
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    measured(tmp_path / "killed", model, masks, schedule=schedule)
    assert output.read_bytes() == (tmp_path / "quiet/seg/m.json").read_bytes()


def test_evaluate_rejects_unsuitable_sets(chain, model: Path, masks: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="a: has no masks; name a dataset of format voc or sbd"):
        measured(tmp_path, model, (chain.train, masks[1]))
    kit = tmp_path / "VOC2007"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (kit / folder).mkdir(parents=True)
    (kit / "ImageSets/Segmentation/val.txt").write_text("1\n2\n")
    for name in "12":
        Image.fromarray(np.full((9, 9, 3), int(name), np.uint8)).save(kit / "JPEGImages" / f"{name}.jpg")
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(kit / "SegmentationClass" / f"{name}.png")
    make_index(Voc(root=str(tmp_path), split="val", targets="masks"), output=tmp_path / "v.parquet", threads=1)
    with pytest.raises(ArtifactError, match="b: its masks contain only background"):
        measured(tmp_path, model, (masks[0], tmp_path / "v.parquet"))


def test_colored_uses_voc_colors_and_white_void() -> None:
    colors = colored(np.array([[0, 1, 15, 255]], np.uint8))
    assert colors.tolist() == [[[0, 0, 0], [128, 0, 0], [192, 128, 128], [255, 255, 255]]]


@pytest.mark.real
def test_evaluate_on_real_images(real_data: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        spec = Voc(root=str(real_data / "voc_coco"), split=split, targets="masks")
        make_index(spec, output=tmp_path / f"{split}.parquet", threads=1)
    index = read_index(tmp_path / "val.parquet")
    assert len(index) > 20 and not index.skipped
    schedule = SHORT.model_copy(update={"steps": 3, "batch_size": 2})
    model = make_model(tmp_path / "m", CaffeNet(width_mult=0.125, bn=True), include_top=False, seed=1)
    found = measured(
        tmp_path, model, (tmp_path / "train.parquet", tmp_path / "val.parquet"), schedule=schedule, padding=100
    )
    truth = np.concatenate([mask_of(index, sample).numpy().ravel() for sample in range(len(index))])
    assert np.array(found.details["confusion"]).sum() == (truth != 255).sum()
    assert all(len(one["uri"]) < 40_000 for one in found.details["drawn"])
