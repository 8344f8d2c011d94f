"""A task's own loss beside a teacher's attention."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError, file_digest
from ssltransfer.artifacts.index import Index
from ssltransfer.config import ConfigError
from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.entities import Pretext, Student
from ssltransfer.config.load import complete
from ssltransfer.config.methods import AttentionTransfer
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import read_model
from ssltransfer.stages import pretext, student
from ssltransfer.tasks.distillation.attention_transfer import AttentionTransferTask, calls_of, distances
from ssltransfer.tasks.pretext.base import build_task
from ssltransfer.training.devices import Devices, plan_devices
from ssltransfer.training.fit import fit

from .conftest import ATTENTION, SMALL, InputsMaker, spec_of

CPU = Devices(torch.device("cpu"), 0)


def plain(student: np.ndarray, teacher: np.ndarray) -> float:
    """|| Qs / ||Qs|| - Qt / ||Qt|| || of one image, (C, H, W) each at the same sides."""
    mine, theirs = ((x**2).sum(0).ravel() for x in (student, teacher))
    gap = mine / math.sqrt((mine**2).sum()) - theirs / math.sqrt((theirs**2).sum())
    return math.sqrt((gap**2).sum())


def first_batch(task: AttentionTransferTask, index: Index, n: int = 4) -> Batch:
    return next(load_batches(index, task.transform, sequential_keys(range(n), n), seed=0))


def test_distances_of_small_maps_match_hand_computation() -> None:
    """Q of the student: (9, 16) of length 20-odd; of the teacher: (16, 0), which is (1, 0)."""
    one = torch.tensor([[[[3.0, 0.0]], [[0.0, 4.0]]]])
    other = torch.tensor([[[[-4.0, 0.0]]]])
    length = math.sqrt(9**2 + 16**2)
    assert distances(one, other).item() == pytest.approx(math.hypot(9 / length - 1, 16 / length) / 2)
    # Opposite places: the root of 2, the farthest there is.
    assert distances(other, other.flip(3)).item() == pytest.approx(math.sqrt(2) / 2)


def test_distances_average_the_larger_attention_map() -> None:
    """Squares are summed before places are joined: a mean of activations would cancel signs."""
    large = torch.tensor([1.0, -1.0, 2.0, 2.0]).view(1, 1, 1, 4)
    small = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
    assert distances(large, small).item() == pytest.approx(0.0, abs=1e-7)
    assert distances(small, large).item() == pytest.approx(0.0, abs=1e-7)


def test_distances_match_numpy_with_gradient() -> None:
    rng = np.random.default_rng(0)
    mine, theirs = rng.normal(size=(3, 5, 4, 3)), rng.normal(size=(3, 2, 4, 3))
    found = torch.tensor(mine, requires_grad=True)
    value = distances(found, torch.tensor(theirs))
    assert value.tolist() == pytest.approx([plain(a, b) / 12 for a, b in zip(mine, theirs, strict=True)], rel=1e-12)
    value.sum().backward()
    step = 1e-6
    for place in ((0, 1, 2, 0), (2, 4, 3, 2), (1, 0, 0, 1)):
        nearby = []
        for sign in (1, -1):
            moved = mine.copy()
            moved[place] += sign * step
            nearby.append(plain(moved[place[0]], theirs[place[0]]) / 12)
        assert found.grad is not None
        assert found.grad[place].item() == pytest.approx((nearby[0] - nearby[1]) / (2 * step), rel=1e-6, abs=1e-10)


def test_distances_ignore_the_scale_of_a_map() -> None:
    torch.manual_seed(0)
    mine, theirs = torch.randn(4, 6, 5, 5), torch.randn(4, 3, 5, 5)
    for factor in (1e-2, 7.0, 1e3):
        assert torch.allclose(distances(factor * mine, theirs), distances(mine, theirs), rtol=1e-5)
        assert torch.allclose(distances(mine, factor * theirs), distances(mine, theirs), rtol=1e-5)


@pytest.mark.parametrize("mine", [torch.randn(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)], ids=["the teacher's", "zero"])
def test_distances_gradient_is_finite_at_zero_norm(mine: Tensor) -> None:
    mine = mine.clone().requires_grad_()
    distances(mine, mine.detach().clone()).sum().backward()
    assert mine.grad is not None and not mine.grad.any()
    dead = torch.zeros(2, 3, 4, 4, requires_grad=True)
    value = distances(dead, torch.ones(2, 3, 4, 4))
    assert value.tolist() == pytest.approx([1 / 16] * 2)
    value.sum().backward()
    assert dead.grad is not None and torch.isfinite(dead.grad).all()


def test_attention_transfer_loss_is_task_loss_plus_transfer(make_given: InputsMaker, solver: Path) -> None:
    """Against backbones called by hand, on the tiles that the task cuts: the teacher under the strides for tiles."""
    given = make_given(ATTENTION, teacher=solver, seed=3)
    task = AttentionTransferTask(given).eval()
    batch = first_batch(task, given.index)
    found = task(batch, batch.rng(7))

    options = given.spec.pretext.task  # type: ignore[union-attr]
    alone: Any = build_task(options, SMALL, 3).eval()
    own = alone(batch, batch.rng(7))
    assert found["task_loss"].item() == own["loss"].item() and found["accuracy"].item() == own["accuracy"].item()

    tiles = alone.puzzles(batch.images, batch.rng(7))[0].flatten(0, 1)
    assert tiles.shape == (36, 3, 24, 24)
    model = read_model(solver)
    theirs = build_backbone(model.backbone.options.for_tiles(1), include_top=False).eval()
    theirs.load_state_dict(model.backbone.state_dict(), strict=False)  # its fully-connected layers stay behind
    total = own["loss"].item()
    for layer, other in (("conv4", "conv3_3"), ("conv5", "conv3_2")):
        mine, wanted = (net(tiles, [name])[name] for net, name in ((alone.backbone, layer), (theirs, other)))
        side = min(mine.shape[-1], wanted.shape[-1])
        assert mine.shape[-1] != wanted.shape[-1]
        pairs = []
        for x in (mine, wanted):
            q = torch.nn.functional.adaptive_avg_pool2d((x.double() ** 2).sum(1, keepdim=True), side)
            pairs.append(q.sqrt().detach().numpy())
        term = np.mean([plain(a, b) for a, b in zip(*pairs, strict=True)]) * task.beta / 2 / side**2
        assert found[f"{layer}_loss"].item() == pytest.approx(term, rel=1e-4)
        total += term
    assert found["loss"].item() == pytest.approx(total, rel=1e-5)


def test_attention_transfer_is_zero_for_the_teacher_itself(make_given: InputsMaker, solver: Path) -> None:
    """Dropout and norms are off in both; chance level, attention to all places alike, is far."""
    method = {**ATTENTION, "layers": ["conv3_3", "conv5_2"], "teacher_layers": None}
    given = make_given(method, backbone=read_model(solver).backbone.options, teacher=solver)
    task = AttentionTransferTask(given)
    task.backbone.load_state_dict(read_model(solver).backbone.state_dict(), strict=False)
    task.eval()
    batch = first_batch(task, given.index)
    found = task(batch, batch.rng(0))
    assert found["conv3_3_loss"].item() == found["conv5_2_loss"].item() == 0
    found["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in task.parameters() if p.grad is not None)
    assert task.chance_loss == task.task.chance_loss == pytest.approx(math.log(6))
    task.on_train_start(given.index, CPU)
    assert task.chance_loss > task.task.chance_loss + 1


def test_attention_transfer_chance_loss_is_uniform_attention(make_given: InputsMaker, solver: Path) -> None:
    given = make_given(ATTENTION, teacher=solver, micro_batch_size=8)
    task = AttentionTransferTask(given).train()
    task.on_train_start(given.index, CPU)
    assert task.training
    task.eval()
    whole = Batch(*(getattr(first_batch(task, given.index, 48), key) for key in ("images", "ids", "epochs")))
    with calls_of(task.backbone, task.layers) as calls:
        task.task(whole, whole.rng(0))
    (tiles, maps), *more = calls
    assert not more and tiles.shape[0] == 9 * 48
    expected = 0.0
    for layer, other in zip(task.layers, task.teacher_layers, strict=True):
        wanted = task._teacher[0](tiles, [other])[other]
        side = min(maps[layer].shape[-1], wanted.shape[-1])
        q = torch.nn.functional.adaptive_avg_pool2d(wanted.square().sum(1), side).flatten(1).double()
        cosine = q.sum(1) / (side * q.norm(dim=1))
        expected += float((2 - 2 * cosine).sqrt().mean()) * task.beta / 2 / side**2
    assert task.chance_loss - math.log(6) == pytest.approx(expected, rel=1e-3)


def test_calls_of_leaves_the_callers_result_unchanged() -> None:
    backbone = build_backbone(SMALL, include_top=False)
    x = torch.randn(2, 3, 64, 64)
    with calls_of(backbone, ["conv1", "conv4"]) as calls:
        last, named = backbone(x), backbone(x, layers=["conv2"])
    assert [set(found) for _, found in calls] == [{"conv1", "conv4"}] * 2 and calls[0][0] is x
    assert torch.equal(last["conv5"], backbone(x)["conv5"]) and torch.equal(
        named["conv2"], backbone(x, ["conv2"])["conv2"]
    )
    assert len(calls) == 2


def test_attention_transfer_without_beta_equals_the_pretext(solver: Path, objects_path: Path, tmp_path: Path) -> None:
    """Same head, order, puzzles and dropout: beta 0 gives the bytes of the task trained alone."""
    spec = spec_of({**ATTENTION, "beta": 0}, lr=0.01)
    assert spec.pretext is not None
    given = {"data": objects_path, "threads": 1}
    pretext.run(spec.pretext, output=tmp_path / "p" / "manifest.json", **given)  # type: ignore[arg-type]
    output = tmp_path / "s" / "manifest.json"
    student.run(spec, output=output, teacher=solver, **given)  # type: ignore[arg-type]
    alone, beside = (file_digest(tmp_path / name / "backbone.safetensors") for name in "ps")
    assert alone == beside


def test_attention_transfer_exports_the_convolutions(
    solver: Path, objects_path: Path, objects_val_path: Path, tmp_path: Path
) -> None:
    output = tmp_path / "s" / "manifest.json"
    student.run(
        spec_of(ATTENTION, steps=3),
        data=objects_path,
        val=objects_val_path,
        teacher=solver,
        output=output,
        threads=1,
    )
    model = read_model(output)
    assert (
        model.normalization == "per-image" and model.backbone.options == SMALL and model.backbone.layers[-1] == "conv5"
    )
    tensors = safetensors.torch.load_file(output.parent / "backbone.safetensors")
    assert set(tensors) == {f"conv{n}.{kind}" for n in range(1, 6) for kind in ("weight", "bias")}
    summary = json.loads(output.read_text())["summary"]
    values = {"loss", "task_loss", "conv4_loss", "conv5_loss", "accuracy"}
    assert {*values, *(f"val_{name}" for name in values), "chance_loss"} <= summary.keys()
    assert summary["loss"] == pytest.approx(summary["task_loss"] + summary["conv4_loss"] + summary["conv5_loss"])
    assert summary["chance_loss"] > math.log(6)


def test_attention_transfer_update_ignores_micro_batches(
    make_given: InputsMaker, solver: Path, objects: Index, tmp_path: Path
) -> None:
    after = []
    for micro in (None, 8):
        given = make_given(ATTENTION, teacher=solver, steps=3, micro_batch_size=micro, lr=0.001)
        task = AttentionTransferTask(given)
        fit(task, objects, given.spec.schedule, seed=0, folder=tmp_path / str(micro), devices=plan_devices(1))
        after.append(task.state_dict())
    for key, value in after[0].items():
        assert torch.allclose(value, after[1][key], rtol=1e-3, atol=1e-5), key


def test_attention_transfer_trains_with_rotation(make_given: InputsMaker, objects: Index, tmp_path: Path) -> None:
    """Four turns of each image, of the size of the student, whatever the teacher's own is."""
    manifest = tmp_path / "t" / "manifest.json"
    spec = {"task": "random", "backbone": {"name": "vgg16", "width_mult": 0.06, "img_size": 96}}
    pretext.run(Pretext.model_validate(spec), output=manifest, threads=1)
    method = {
        "name": "attention-transfer",
        "task": {"name": "rotation", "hidden_dim": 16, "augment": "crop"},
        "teacher_layers": ["conv3_3", "conv4_3", "conv5_3"],
    }
    task = AttentionTransferTask(make_given(method, teacher=manifest)).train()
    batch = first_batch(task, objects, 2)
    found = task(batch, batch.rng(0))
    assert found.keys() >= {"conv3_loss", "conv4_loss", "conv5_loss", "task_loss", "accuracy"}
    found["loss"].backward()
    assert task.backbone.conv1.weight.grad.abs().max() > 0  # type: ignore[union-attr, operator]
    assert not any("eacher" in name for name in task.state_dict())


def test_attention_transfer_refuses_another_normalization(make_given: InputsMaker, teacher: Path) -> None:
    given = make_given({**ATTENTION, "teacher_layers": ["block2", "block3"]})
    with pytest.raises(ArtifactError, match=r"normalized as 'half', but jigsaw\+\+ normalizes them as 'per-image'"):
        AttentionTransferTask(given)


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ({"layers": ["conv4", "conv6"]}, r"^students.method.layers: no layer 'conv6'; it has conv1, conv2, "),
        ({"teacher_layers": ["conv4", "conv5"]}, r"manifest.json: no layer 'conv4'; it has conv1_1, "),
        (
            {"teacher_layers": ["conv4_1", "fc7"]},
            r"manifest.json: fc7 is a vector without locations; name maps: conv1_1, ",
        ),
    ],
)
def test_attention_transfer_refuses_unknown_layers(
    layers: dict[str, Any], sentence: str, make_given: InputsMaker, solver: Path
) -> None:
    with pytest.raises(LayerError, match=sentence):
        AttentionTransferTask(make_given({**ATTENTION, **layers}, teacher=solver))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"task": "random"}, "task random has no loss of its own"),
        (
            {"task": {"name": "multi-task", "tasks": {"a": {"task": "rotation"}}}},
            "task multi-task has no loss of its own",
        ),
        ({"augment": "none"}, "`augment` is not used by this method"),
        ({"dropout": 0.5}, "`dropout` is not used by this method"),
        ({"precompute_teacher": True}, "remove `precompute_teacher`"),
        ({"teacher_layers": ["conv4_3"]}, "3 layers of the student and 1 of the teacher"),
        ({"beta": -1}, "greater than or equal to 0"),
    ],
)
def test_attention_transfer_options_refuse_unused_keys(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        AttentionTransfer.model_validate({"teacher": "t", "task": "jigsaw++", **wrong})


def configuration(batch: int = 8, **method: Any) -> dict[str, Any]:
    data = {"format": "synthetic", "subset": "objects", "split": "train", "num_images": 48}
    schedule = {"steps": 2, "batch_size": batch}
    return {
        "datasets": {"d": data, "e": {**data, "split": "val"}},
        "pretexts": {
            "p": {"task": "jigsaw++", "backbone": "vgg16", "data": "d", "schedule": {"steps": 2, "batch_size": 8}}
        },
        "students": {
            "s": {
                "method": {"name": "attention-transfer", "teacher": "p", "task": "jigsaw++", **method},
                "data": "d",
                "backbone": "caffenet",
                "schedule": schedule,
            }
        },
        "evaluations": {
            "n": {
                "protocol": "knn",
                "models": ["s"],
                "baselines": ["supervised"],
                "train": "d",
                "test": "e",
            }
        },
    }


LAYERS = ("conv3_3", "conv4_3", "conv5_3")


def test_attention_transfer_configuration_is_complete() -> None:
    config = complete(configuration(teacher_layers=LAYERS))
    spec = config.students["s"]
    assert Student.parse(spec.canonical()) == spec
    assert config.model("s").layers == CaffeNet().base_layers
    assert spec.pretext == config.pretexts["p"].model_copy(
        update={"backbone": spec.backbone, "schedule": spec.schedule}
    )
    # The supervised baseline has the usual schedule, not that of the pretext task.
    control = config.students["supervised-caffenet-d"]
    assert control.method.augment == "warp-crop" and control.schedule.steps == 450_000


@pytest.mark.parametrize(
    ("batch", "method", "sentence"),
    [
        (8, {}, "students.s.method.teacher_layers: model 'p' .* has no layer 'conv3'"),
        (8, {"layers": ["conv3", "conv4", "conv7"], "teacher_layers": LAYERS}, "caffenet has no layer 'conv7'"),
        (8, {"layers": ["conv3", "conv4", "fc7"], "teacher_layers": LAYERS}, "fc7 of caffenet is a vector"),
        (7, {"teacher_layers": LAYERS}, r"students.s.schedule.batch_size: jigsaw\+\+ uses images in groups of 2"),
        (
            8,
            {"teacher_layers": LAYERS, "task": "motion-segmentation"},
            "students.s.data: motion-segmentation needs motion",
        ),
    ],
)
def test_attention_transfer_configuration_refuses_errors(batch: int, method: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        complete(configuration(batch, **method))


def test_distances_match_worked_example() -> None:
    """Two channels (1, 2) and (root 2, 0) give Q = (3, 4), normalized (.6, .8); the teacher's is (1, 0).

    The distance is the root of .4^2 + .8^2, over two locations.
    """
    student = torch.tensor([[[[1.0, 2.0]], [[math.sqrt(2), 0.0]]]])
    teacher = torch.tensor([[[[3.0, 0.0]]]])
    assert distances(student, teacher).item() == pytest.approx(math.sqrt(0.8) / 2, rel=1e-6)
