"""Depth by fine-tuning: the network's shape, what learns, and whole runs on the embedded world's rooms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.colors import ListedColormap

from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.metrics import Metrics, read_metrics
from ssltransfer.config.backbones import BackboneOptions, CaffeNet, HogWords, ResNet18, ResNet101V2, Vgg16
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.formats import Rgbd
from ssltransfer.config.protocols import Depth
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.drawing import depth_colors
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.data.rng import SampleRNG
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.protocols import depth
from ssltransfer.protocols.depth import DepthTask
from ssltransfer.protocols.depth_errors import Median, depth_metrics
from ssltransfer.stages.evaluate import run
from ssltransfer.stages.index import run as make_index
from tests.helpers.protocol_inputs import context_of, make_model, make_sets

NARROW = ResNet18(width_mult=0.125, img_size=64)
FINE: dict[str, Any] = {"resize": (48, 64), "crop": (42, 60), "decoder_dim": 32}
SHORT = Schedule(steps=7, batch_size=4, lr=0.01)


def task_of(options: BackboneOptions, *, include_top: bool = True, **protocol: object) -> DepthTask:
    model = PretrainedModel(
        build_backbone(options, include_top=include_top).eval().requires_grad_(False), "imagenet", "", "m"
    )
    return DepthTask(model, Depth(**protocol), Median(3.0, 1.0), 0, "m")


def test_options_match_published_constants() -> None:
    options, schedule = Depth(), Depth().schedule
    assert (options.resize, options.crop, options.scale, options.rotation) == ((240, 320), (228, 304), (1.0, 1.5), 5.0)
    assert (options.color_jitter, options.depth_range, options.hflip, options.decoder_dim) == (
        (0.8, 1.2),
        (0.1, 10.0),
        True,
        512,
    )
    assert (schedule.optimizer, schedule.momentum, schedule.batch_size, schedule.epochs) == ("sgd", 0.9, 16, 20)
    first, last = schedule.lr_at(0, 795), schedule.lr_at(schedule.total_steps(795) - 1, 795)
    assert (first, last) == (0.01, 0.01 / 4)
    assert Depth.lower_is_better == {"mae", "rel"} and Depth.units == {"mae": "m", "rel": ""}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"crop": (250, 300)}, r"crop \(250, 300\) must fit in resize"),
        ({"scale": (0.5, 1.0)}, "scale .* must be two numbers from 1 on"),
        ({"color_jitter": (1.2, 0.8)}, "the smaller first"),
        ({"depth_range": (0, 10)}, "depth_range .* must be two positive numbers"),
    ],
)
def test_options_reject_invalid_values(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Depth(**given)


@pytest.mark.parametrize(
    ("options", "protocol", "layer", "ups", "side"),
    [
        (ResNet101V2(width_mult=0.125), {}, "block3", 3, (120, 152)),
        (ResNet101V2(width_mult=0.125), {"output_stride": None}, "block3", 2, (116, 152)),
        (ResNet18(width_mult=0.125), {}, "block3", 3, (120, 152)),
        (ResNet18(width_mult=0.125), {"layer": "block4"}, "block4", 4, (128, 160)),
        (CaffeNet(width_mult=0.125), {}, "conv5", 3, (104, 144)),
        (Vgg16(width_mult=0.06), {}, "conv5_3", 3, (112, 152)),
    ],
    ids=lambda value: value.name if isinstance(value, BackboneOptions) else None,
)
def test_task_predicts_half_resolution(
    options: BackboneOptions, protocol: dict[str, Any], layer: str, ups: int, side: tuple[int, int]
) -> None:
    task = task_of(options, include_top=False, decoder_dim=32, **protocol).eval()
    assert task.layer == layer and len(task.head) - 1 == ups
    widths = [block.get_submodule("shortcut.0").out_channels for block in task.head[:-1]]
    assert widths == [32, 16, 8, 8][:ups] and task.head[-1].in_channels == widths[-1]
    with torch.no_grad():
        assert task.predict(torch.zeros(1, 3, 228, 304)).shape == (1, *side)


def test_task_has_published_up_projections() -> None:
    with torch.device("meta"):
        backbone = build_backbone(ResNet101V2(output_stride=16), include_top=True)
        assert backbone(torch.empty(1, 3, 228, 304), ["block3"])["block3"].shape == (1, 1024, 15, 19)
    task = task_of(ResNet18(width_mult=0.125))
    shapes = [block.get_parameter("shortcut.0.weight").shape[:2] for block in task.head[:-1]]
    assert shapes == [(512, 32), (256, 512), (128, 256)]
    assert task.head[-1].weight.shape == (1, 128, 3, 3) and float(task.head[-1].get_parameter("bias")) == 3.0


@pytest.mark.parametrize(
    ("options", "protocol", "says"),
    [
        (NARROW, {"layer": "pool"}, "m: pool is a vector; name a map as `layer`"),
        (NARROW, {"layer": "block9"}, "m: no layer 'block9'; its maps are conv1, block1"),
        (NARROW, {"layer": "conv1"}, "m: conv1 is at stride 2 or less already"),
        (
            CaffeNet(width_mult=0.125),
            {"resize": (20, 20), "crop": (20, 20)},
            "m: images of 20 x 20 pixels are too small",
        ),
        (HogWords(vocabulary_size=8), {}, "m: words is a vector"),
    ],
)
def test_task_rejects_layers_without_map(options: BackboneOptions, protocol: dict[str, Any], says: str) -> None:
    with pytest.raises(LayerError, match=says):
        task_of(options, **protocol)


def test_task_trains_whole_backbone_and_keeps_model(rooms: tuple[Path, Path]) -> None:
    backbone = build_backbone(NARROW, include_top=True).eval().requires_grad_(False)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    task = DepthTask(PretrainedModel(backbone, "imagenet", "", "m"), Depth(**FINE), Median(3.0, 1.0), 0, "m").train()
    train = read_index(rooms[0])
    (batch,) = load_batches(train, task.transform, sequential_keys(range(4), 4), seed=0)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    outputs = task(batch, SampleRNG(0, batch.epochs, batch.ids))
    outputs["loss"].backward()
    learning = {name for name, p in task.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name.split(".")[1] for name in learning if name.startswith("backbone.")} >= {"conv1", "layer1", "layer3"}
    assert not [name for name in learning if "layer4" in name]
    optimizer.step()
    assert not torch.equal(task.backbone.state_dict()["conv1.weight"], before["conv1.weight"])
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_task_starts_at_chance_loss(rooms: tuple[Path, Path]) -> None:
    median = depth.median_depth(read_index(rooms[0]))
    backbone = build_backbone(NARROW, include_top=True).eval()
    task = DepthTask(PretrainedModel(backbone, "imagenet", "", "m"), Depth(**FINE), median, 0, "m").eval()
    (batch,) = load_batches(read_index(rooms[0]), task.val_transform, sequential_keys(range(48), 48), seed=0)
    with torch.no_grad():
        loss = float(task(batch, SampleRNG(0, batch.epochs, batch.ids))["loss"])
    assert loss == pytest.approx(task.chance_loss, rel=0.15) and task.chance_loss == median.loss


def test_task_learns_depth(rooms: tuple[Path, Path], tmp_path: Path) -> None:
    found = measured(
        tmp_path, CaffeNet(width_mult=0.25, img_size=64, bn=True, stem_stride=2), rooms, steps=150, lr=0.05
    )
    assert (found.primary_metric, set(found.values)) == ("d1", {"d1", "d2", "d3", "mae", "rel"})
    chance = found.details["chance"]
    d1, d2, d3 = (found.mean(name) for name in ("d1", "d2", "d3"))
    assert found.chance == chance["d1"]
    assert chance["d1"] + 4 < d1 <= d2 <= d3 <= 100
    assert found.mean("mae") < 0.9 * chance["mae"]
    assert found.details["layer"] == "conv5" and found.details["up_projections"] == 2
    assert found.details["median_depth"] == depth.median_depth(read_index(rooms[0])).meters
    drawn = found.details["drawn"]
    assert len(drawn) == 6 and all(len(one["uri"]) < 40_000 for one in drawn)
    assert drawn[0]["title"].startswith("rgb/00000.jpg: image, measured depth, prediction, ")
    assert [figure["title"] for figure in found.details["lines"]] == ["berHu", "within a factor of 1.25"]


@pytest.mark.slow
def test_task_improves_with_more_images(tmp_path: Path) -> None:
    images = make_sets(tmp_path, "rgbd", {"train": 300, "test": 40}, 64, targets="depth")
    found = measured(tmp_path, NARROW.model_copy(update={"width_mult": 0.25}), images, steps=400, lr=0.1)
    assert found.chance is not None and found.mean("d1") > found.chance + 10
    assert found.mean("mae") < 0.8 * found.details["chance"]["mae"]


def measured(folder: Path, backbone: BackboneOptions, images: tuple[Path, Path], *, steps: int, lr: float) -> Metrics:
    """A run without turns and enlargements, which take more images and steps than a test has."""
    schedule = Schedule(steps=steps, batch_size=8, lr=lr, milestones=(0.7 * steps,))
    protocol = Depth(**FINE, scale=(1.0, 1.0), rotation=0.0, schedule=schedule)
    output = folder / "depth" / "m.json"
    given = {"model": make_model(folder / "m", backbone), "train": images[0], "test": images[1], "threads": 1}
    run(EvaluationSpec(protocol=protocol, train="a", test="b"), output=output, **given)  # type: ignore[arg-type]
    found = read_metrics(output)
    print({name: round(found.mean(name), 3) for name in found.values}, found.chance, found.details["chance_loss"])
    return found


def test_evaluate_is_reproducible(rooms: tuple[Path, Path], tmp_path: Path) -> None:
    spec = EvaluationSpec(protocol=Depth(**FINE, schedule=SHORT), train="a", test="b", seeds=(0, 1))
    model = make_model(tmp_path / "m", NARROW)
    for name in ("one", "two"):
        output = tmp_path / name / "depth" / "m.json"
        run(spec, model=model, train=rooms[0], test=rooms[1], output=output, threads=1)
    one, two = ((tmp_path / name / "depth" / "m.json").read_bytes() for name in ("one", "two"))
    assert one == two and len(read_metrics(output).values["d1"]) == 2


class Cut(DepthTask):
    """One that dies after step 4 as long as nobody has seen it die."""

    died = False

    def after_step(self, step: int) -> None:
        if step == 4 and not Cut.died:
            Cut.died = True
            raise KeyboardInterrupt


def test_evaluate_resumes_to_same_result(
    rooms: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_STEPS", "2")
    model = make_model(tmp_path / "m", NARROW)
    spec = EvaluationSpec(protocol=Depth(**FINE, schedule=SHORT), train="a", test="b")
    given = {"model": model, "train": rooms[0], "test": rooms[1], "threads": 1}
    run(spec, output=tmp_path / "whole" / "m.json", **given)  # type: ignore[arg-type]
    monkeypatch.setattr(depth, "DepthTask", Cut)
    with pytest.raises(KeyboardInterrupt):
        run(spec, output=tmp_path / "cut" / "m.json", **given)  # type: ignore[arg-type]
    run(spec, output=tmp_path / "cut" / "m.json", **given)  # type: ignore[arg-type]
    one, other = (read_metrics(tmp_path / name / "m.json") for name in ("whole", "cut"))
    assert replace(one, evaluation="") == replace(other, evaluation="")


def test_errors_are_independent_of_batch_size(
    rooms: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(NARROW, **FINE)
    context = context_of(task.options, *rooms, tmp_path)
    found = []
    for size in (1, 5, 16):
        monkeypatch.setattr(depth, "TEST_BATCH", size)
        errors, chance_level, drawn = task.test(context)
        assert len(drawn) == 6 and errors[0] == chance_level[0]
        found.append(depth_metrics(errors))
    # A pixel or two of 60,000 at the edge of a factor may fall to either side.
    assert found[0] == pytest.approx(found[1], abs=0.01) and found[1] == pytest.approx(found[2], abs=0.01)
    # Every pixel that has a value and lies in the center.
    assert 0.85 < errors[0] / (len(context.test) * 42 * 60) < 1


def test_depth_colors_are_viridis_and_gray_for_missing() -> None:
    values = np.array([[1.0, 2.0, 3.0, 0.0, 99.0]])
    found = depth_colors(values, 1.0, 3.0)
    viridis = colormaps["viridis"]
    assert isinstance(viridis, ListedColormap)
    table = (np.array(viridis.colors) * 255).round()
    assert found.shape == (1, 5, 3) and found.dtype == np.uint8
    assert found[0, 0].tolist() == table[255].tolist() and found[0, 2].tolist() == table[0].tolist()
    assert found[0, 3].tolist() == [128, 128, 128] and found[0, 4].tolist() == table[0].tolist()
    assert min(abs(table - found[0, 1]).sum(1)) == 0


@pytest.mark.real
@pytest.mark.slow
def test_evaluate_on_real_images(kitchen: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        make_index(Rgbd(root=str(kitchen), split=split), output=tmp_path / f"{split}.parquet", threads=1)
    model = make_model(tmp_path / "m", NARROW.model_copy(update={"width_mult": 0.25}))
    protocol = Depth(
        resize=(60, 80), crop=(57, 76), decoder_dim=32, schedule=Schedule(steps=150, batch_size=8, lr=0.02)
    )
    output = tmp_path / "depth" / "m.json"
    given = {"model": model, "train": tmp_path / "train.parquet", "test": tmp_path / "test.parquet"}
    run(EvaluationSpec(protocol=protocol, train="a", test="b"), output=output, threads=1, **given)
    found = read_metrics(output)
    print({name: found.mean(name) for name in found.values}, found.chance, found.details["chance_loss"])
    assert found.chance is not None and found.mean("d1") > found.chance + 10
    assert found.mean("rel") < found.details["chance_loss"]["rel"]
