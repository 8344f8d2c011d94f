"""Laws that every trained pretext task obeys, at tiny sizes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import BackboneOptions, CaffeNet, ResNet18, Vgg16
from ssltransfer.config.schedule import Schedule
from ssltransfer.config.tasks import TASKS as OPTIONS
from ssltransfer.config.tasks import AnyTask
from ssltransfer.data.loader import Batch, load_batches, sequential_keys, training_keys
from ssltransfer.data.tiles import patch_pairs
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.tasks.pretext.base import PretextTask, build_task
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import fit
from ssltransfer.training.train_step import Trainer
from tests.helpers.small_tasks import TASKS, TILES, train_step

CPU = Devices(torch.device("cpu"), 0)
SMALL = CaffeNet(width_mult=0.125, img_size=48, stem_stride=2)
PAIRS = {"drop", "project", "residual", "harmonized"}  # a grid has fewer diagonal neighbors than straight ones
CHANCE_LOSSES = {"colorization": math.log(313), "exemplar": 0.5, "exemplar-batch": 0.5, "exemplar-patches": 0.5}
OWN_STEM = {"rotation", "residual", "harmonized", "colorization", "exemplar"}  # what images see too
KINDS = {kind.model_fields["name"].default: kind for kind in OPTIONS}
each = pytest.mark.parametrize("name", TASKS)


def build(name: str, backbone: BackboneOptions = SMALL, seed: int = 0, **more: Any) -> PretextTask:
    options: Any = TypeAdapter(AnyTask).validate_python(TASKS[name] | more)
    return build_task(options, backbone, seed)


def batch_of(task: PretextTask, index: Index, n: int, *, workers: int = 0) -> Batch:
    return next(load_batches(index, task.transform, sequential_keys(range(n), n), seed=0, workers=workers))


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Tiny networks gain nothing from threads, and lose much where others work beside them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@each
def test_task_starts_at_the_chance_loss(name: str, objects: Index):
    task = build(name)
    batch = batch_of(task, objects, 48)
    with torch.no_grad():
        loss = float(task(batch, batch.rng(0))["loss"])
    # Two views of one place have like features in any network.
    assert abs(loss - task.chance_loss) < (0.25 if name == "exemplar-patches" else 0.15)
    if name in PAIRS:
        assert 0 < math.log(8) - task.chance_loss < 0.1
    else:
        assert task.chance_loss == pytest.approx(CHANCE_LOSSES.get(name, math.log(4 if "rotation" in name else 8)))


@each
def test_task_overfits_a_few_images(name: str, objects: Index):
    dry: dict[str, Any] = {"dropout": 0.0} if "jigsaw" in name else {}
    task = build(name, **dry)
    schedule = Schedule(steps=25, batch_size=16, lr=0.003, optimizer="adam", weight_decay=0.0)
    trainer = Trainer(task, schedule, 0, CPU)
    batch = batch_of(task, objects, 16)
    losses = [train_step(trainer, batch)["loss"] for _ in range(25)]
    assert losses[-1] < 0.6 * task.chance_loss


@each
def test_task_gradient_reaches_the_stem(name: str, objects: Index):
    task = build(name)
    batch = batch_of(task, objects, 8)
    task(batch, batch.rng(0))["loss"].backward()
    gradient = task.backbone.get_parameter("conv1.weight").grad
    assert gradient is not None and gradient.abs().max() > 0 and torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    "name", ["jigsaw++", "jigsaw-kolesnikov", "exemplar", "drop", "rotation-inception", "residual", "exemplar-patches"]
)
def test_task_loss_ignores_the_number_of_workers(name: str, objects: Index):
    task = build(name)
    keys = list(training_keys(len(objects), 16, 2, 5, seed=9))  # beyond the first epoch
    runs = []
    for workers in (0, 1, 4):
        batches = list(load_batches(objects, task.transform, iter(keys), seed=9, workers=workers))
        torch.manual_seed(0)
        with torch.no_grad():
            runs.append([(batch, float(task(batch, batch.rng(9))["loss"])) for batch in batches])
    for run in runs[1:]:
        for (one, loss), (other, loss_again) in zip(runs[0], run, strict=True):
            assert torch.equal(one.images, other.images) and torch.equal(one.ids, other.ids)
            assert torch.equal(one.epochs, other.epochs) and loss == loss_again


@pytest.mark.parametrize("name", ["jigsaw", "jigsaw++", "colorization"])
def test_task_update_ignores_micro_batches(name: str, objects: Index):
    """Without dropout and batch normalization, accumulation over micro-batches changes nothing but rounding."""
    after = []
    dry: dict[str, Any] = {"dropout": 0.0} if "jigsaw" in name else {}
    for micro_batch_size in (None, 4):
        task = build(name, **dry)
        schedule = Schedule(steps=1, batch_size=16, lr=0.1, micro_batch_size=micro_batch_size)
        batch = batch_of(task, objects, 16)
        values = train_step(Trainer(task, schedule, 0, CPU), batch)
        after.append((values, task.state_dict()))
    assert after[0][0] == pytest.approx(after[1][0], rel=1e-5)
    start = build(name, **dry).state_dict()
    for key, value in after[0][1].items():
        if value.is_floating_point() and key not in ("weights", "constant"):  # colorization's, which no gradient moves
            assert not torch.equal(value, start[key])
            assert torch.allclose(value - start[key], after[1][1][key] - start[key], rtol=1e-3, atol=1e-7), key


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"jigsaw++"}))  # its occluders are the neighbor's
def test_task_inputs_ignore_the_rest_of_the_batch(name: str, objects: Index):
    task = build(name)
    batch = batch_of(task, objects, 6)
    inputs = inputs_of(task, batch)
    alone = [inputs_of(task, part) for part in batch.split(1)]
    assert torch.equal(inputs, torch.cat(alone))


def inputs_of(task: Any, batch: Batch) -> Tensor:
    rng = batch.rng(3)
    if hasattr(task, "puzzles"):
        found: Tensor = task.puzzles(batch.images, rng)[0]
    elif hasattr(task, "inputs"):
        found = task.inputs(batch.images, rng)[0]
    else:
        found = task.prepare(patch_pairs(batch.images, rng, task.options))
    return found


@each
def test_task_show_returns_a_table_of_images(name: str, objects: Index):
    task = build(name)
    batch = batch_of(task, objects, 2)
    captions, columns = zip(*task.show(batch, batch.rng(0)), strict=True)
    assert captions[0] in ("image", "first box") and len(set(captions)) == len(captions) >= 3
    for column in columns:
        assert column.shape[:2] == (2, 3) and column.min() >= 0 and column.max() <= 255
        assert column.float().std() > 5  # something is to be seen


@pytest.mark.parametrize("name", ["residual", "colorization", "exemplar-patches"])
def test_task_resumes_with_the_same_result(name: str, objects: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_STEPS", "2")
    schedule = Schedule(steps=5, batch_size=8, lr=0.01)

    def run(task: PretextTask, folder: Path) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
        fitted = fit(task, objects, schedule, seed=0, folder=folder, devices=CPU, val=objects)
        return task.state_dict(), fitted.curve

    whole, curve = run(build(name), tmp_path / "whole")
    cut = build(name)
    monkeypatch.setattr(cut, "after_step", lambda step: 1 // (3 - step))
    with pytest.raises(ZeroDivisionError):
        run(cut, tmp_path / "cut")
    again, same_curve = run(build(name), tmp_path / "cut")
    assert all(torch.equal(value, again[key]) for key, value in whole.items()) and curve == same_curve


SHARING = sorted({name for name, options in TASKS.items() if KINDS[options["name"]].supports_multi_task})


@pytest.mark.parametrize("name", SHARING)
def test_build_task_trains_a_shared_backbone(name: str, objects: Index):
    """Its weights are the shared ones, and learn; the heads are those that an own backbone would have."""
    options: Any = TypeAdapter(AnyTask).validate_python(TASKS[name])
    # A stem of the task's own would not be the shared one.
    backbone = SMALL.model_copy(update={"stem_stride": 1}) if getattr(options, "stem_stride", None) else SMALL
    shared = build_backbone(backbone, include_top=False, seed=7)
    task, alone = build_task(options, shared, 0), build(name, backbone)
    assert task.backbone is shared
    names = {key.rpartition("backbone.")[2]: parameter for key, parameter in task.named_parameters()}
    for key, parameter in alone.named_parameters():
        assert torch.equal(names[key.rpartition("backbone.")[2]], parameter) == (
            "backbone." not in key or "bias" in key
        )
    batch = batch_of(task, objects, 4)
    task(batch, batch.rng(0))["loss"].backward()
    assert all(parameter.grad is not None for parameter in shared.parameters())


@each
def test_task_exports_the_backbone_alone(name: str):
    """Neither head nor tile stem: the tensors fit the backbone as it was asked for."""
    task = build(name)
    own = build_backbone(SMALL, include_top=False)
    own.load_state_dict(task.backbone.state_dict())
    assert set(own.state_dict()) == {f"conv{n}.{kind}" for n in range(1, 6) for kind in ("weight", "bias")}
    assert own.options == SMALL and own.get_submodule("conv1").stride == (2, 2)
    stride = task.backbone.get_submodule("conv1").stride
    assert stride == ((2, 2) if name.split("-")[0] in OWN_STEM else (1, 1))


@each
def test_task_weights_depend_on_the_seed(name: str):
    one, same, other = (build(name, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(value, same.state_dict()[key]) for key, value in one.state_dict().items())
    for module in ("backbone.conv1.weight", *(k for k, _ in one.named_parameters() if k.endswith("fc8.weight"))):
        assert not torch.equal(one.state_dict()[module], other.state_dict()[module])


@pytest.mark.parametrize(
    "name",
    ["jigsaw++", "jigsaw-kolesnikov", "exemplar", "drop", "rotation", "residual", "colorization", "exemplar-patches"],
)
@pytest.mark.parametrize(
    "backbone", [ResNet18(width_mult=0.125, img_size=48), Vgg16(width_mult=0.125, img_size=48)], ids=lambda t: t.name
)
def test_task_trains_other_backbones(name: str, backbone: BackboneOptions, objects: Index):
    task = build(name, backbone)
    schedule = Schedule(steps=12, batch_size=8, lr=0.003, optimizer="adam", weight_decay=0.0)
    trainer = Trainer(task, schedule, 0, CPU)
    batch = batch_of(task, objects, 8)
    losses = [train_step(trainer, batch)["loss"] for _ in range(12)]
    assert losses[-1] < losses[0]
    build_backbone(backbone, include_top=False).load_state_dict(task.backbone.state_dict())


def test_task_refuses_tiles_that_are_too_small():
    with pytest.raises(LayerError, match="Tiles of 16 pixels are too small for caffenet"):
        build("jigsaw", tiles=TILES | {"stem_stride": 4})
    with pytest.raises(LayerError, match="Patches of 20 pixels are too small"):
        build("drop", stem_stride=4)


def test_task_dropout_differs_by_step(objects: Index):
    task = build("jigsaw")
    assert any(isinstance(part, nn.Dropout) and part.p == 0.5 for part in task.modules())
    batch = batch_of(task, objects, 8)
    torch.manual_seed(1)
    one = task(batch, batch.rng(0))["loss"]
    assert not torch.equal(one, task(batch, batch.rng(0))["loss"])
    torch.manual_seed(1)
    assert torch.equal(one, task(batch, batch.rng(0))["loss"])
