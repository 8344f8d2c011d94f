"""Feature distillation: its terms, heads, losses and statistics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from ssltransfer.artifacts.files import file_digest, read_json
from ssltransfer.cli import main
from ssltransfer.config.backbones import ResNet18
from ssltransfer.config.methods import FeatureDistillation
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.normalize import normalize
from ssltransfer.tasks.distillation.feature_distillation import (
    FeatureDistillationTask,
    feature_loss,
    head_of,
    resized,
    scale_of,
)
from ssltransfer.tasks.student import StudentInputs
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import TrainingError

from .conftest import TEACHER, InputsMaker, spec_of

CPU = Devices(torch.device("cpu"), 0)
BOTH = {"name": "feature-distillation", "map_weight": 0.5, "head": "linear", "augment": "none"}
LOSSES = ["cosine", "l2", "smooth-l1", "cosine+smooth-l1"]


def batch_of(task: FeatureDistillationTask, given: StudentInputs, n: int = 48) -> Batch:
    return next(load_batches(given.index, task.transform, sequential_keys(range(n), n), seed=0))


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_zero_for_the_teacher_itself(loss: str, make_given: InputsMaker) -> None:
    given = make_given({**BOTH, "loss": loss}, TEACHER)
    task = FeatureDistillationTask(given)
    assert task._online is not None
    task.backbone.load_state_dict(task._online.model.backbone.state_dict())
    task.normalization = task._online.model.normalization
    for head in task.heads.values():
        assert isinstance(head, nn.Linear)
        nn.init.eye_(head.weight)
        nn.init.zeros_(head.bias)
    task.eval()
    task.on_train_start(given.index, CPU)
    batch = batch_of(task, given, 16)
    found = task(batch, batch.rng(0))
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {"loss": 0, "pooled_loss": 0, "map_loss": 0}, abs=1e-6
    )
    assert task.chance_loss > 1e-3


def plain_loss(kind: str, student: np.ndarray, teacher: np.ndarray) -> float:
    """The definition, one feature at a time (protocols 3.5)."""
    found = []
    for s, t in zip(student, teacher, strict=True):
        error = np.abs(s - t)
        parts = {
            "cosine": 1 - s @ t / max(np.linalg.norm(s) * np.linalg.norm(t), 1e-8),
            "l2": np.mean(error**2),
            "smooth-l1": np.mean(np.where(error < 1, error**2 / 2, error - 0.5)),
        }
        parts["cosine+smooth-l1"] = 0.9 * parts["cosine"] + 0.1 * parts["smooth-l1"]
        found.append(parts[kind])
    return float(np.mean(found))


def test_feature_loss_matches_worked_example() -> None:
    """Two features: (3, 4) beside (4, 3), whose cosine is 24/25, and (0, 2) beside (0, -1)."""
    student, teacher = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[4.0, 3.0], [0.0, -1.0]])
    found: list[Any] = [feature_loss(kind, student, teacher).item() for kind in LOSSES]  # type: ignore[arg-type]
    cosine, smooth = (0.04 + 2) / 2, (0.5 + 0.5 + 2.5) / 4
    assert found == pytest.approx([cosine, (1 + 1 + 9) / 4, smooth, 0.9 * cosine + 0.1 * smooth])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("normalization", ["none", "standardize", "whiten"])
def test_terms_match_a_plain_version(loss: str, normalization: str, make_given: InputsMaker) -> None:
    """A student of other dimensions with a larger map. Statistics are those of the whole dataset."""
    method = {
        **BOTH,
        "loss": loss,
        "pooled_weight": 2,
        "teacher_normalization": normalization,
        "map_layer": "conv4",
        "teacher_map_layer": "block4",
    }
    given = make_given(method)
    task = FeatureDistillationTask(given).eval()
    task.on_train_start(given.index, CPU)
    batch = batch_of(task, given)
    views = task.views(batch, batch.rng(0))
    assert task._online is not None
    with torch.no_grad():
        found = task(batch, batch.rng(0))
        student = task.backbone(normalize(views, task.normalization), ["conv4", "fc7"])
        teacher = task._online.maps(views, ["block4", "pool"])
        heads: Any = task.heads
        weight, bias = heads["map"].weight, heads["map"].bias
        mapped = F.conv2d(student["conv4"], weight[:, :, None, None], bias)
        side = teacher["block4"].shape[-1]
        assert mapped.shape[-1] > side == 2
        mapped = F.interpolate(mapped, (side, side), mode="bilinear", antialias=True)
        pairs = {
            "pooled": (student["fc7"] @ heads["pooled"].weight.T + heads["pooled"].bias, teacher["pool"]),
            "map": (rows_of(mapped), rows_of(teacher["block4"])),
        }
    values, chances = {}, {}
    for term, (ours, theirs) in pairs.items():
        target = plain_normalized(theirs.double().numpy(), normalization)
        values[term] = plain_loss(loss, ours.double().numpy(), target)
        mean = target.mean(0) if normalization == "none" else np.zeros(target.shape[1])
        chances[term] = plain_loss(loss, np.broadcast_to(mean, target.shape), target)
        assert found[f"{term}_loss"].item() == pytest.approx(values[term], rel=1e-3)
    assert found["loss"].item() == pytest.approx(2 * values["pooled"] + 0.5 * values["map"], rel=1e-3)
    assert task.chance_loss == pytest.approx(2 * chances["pooled"] + 0.5 * chances["map"], rel=1e-3)


def rows_of(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B H W, C)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def plain_normalized(rows: np.ndarray, how: str) -> np.ndarray:
    centered = rows - rows.mean(0)
    if how == "none":
        return rows
    if how == "standardize":
        return centered / np.sqrt(np.maximum(centered.var(0), 1e-6 * centered.var(0).mean()))
    covariance = centered.T @ centered / len(rows)
    left, values, _ = np.linalg.svd(
        covariance + 0.01 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    )
    return centered @ left @ np.diag(values**-0.5) @ left.T


def test_whitened_features_are_uncorrelated() -> None:
    torch.manual_seed(0)
    rows = torch.randn(500, 4, dtype=torch.float64) @ (torch.randn(4, 4) + 4 * torch.eye(4)).double()
    whitened = rows @ scale_of(rows.T @ rows / 500, whiten=True)
    covariance = whitened.T @ whitened / 500
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 0.1
    assert torch.equal(scale_of(torch.zeros(3, 3), whiten=False), torch.ones(3))
    assert torch.allclose(scale_of(torch.zeros(3, 3), whiten=True), torch.eye(3))


def test_resized_keeps_the_order_of_locations() -> None:
    """A ramp from left to right stays one; halving its sides averages neighbors."""
    ramp = torch.arange(4.0).view(1, 1, 4, 1).expand(1, 4, 4, 2)
    small = resized(ramp, torch.zeros(1, 2, 2, 2))
    assert small.shape == (1, 2, 2, 2) and (small[0, :, 0] < small[0, :, 1]).all()
    assert torch.allclose(small[0, 0], small[0, 1]) and small.mean().item() == pytest.approx(1.5)
    assert resized(ramp, ramp) is ramp and resized(ramp[:, 0, 0], ramp[:, 0, 0]).shape == (1, 2)


def test_mlp_head_is_that_of_simreg() -> None:
    """Four linear layers; batch norm and ReLU after the first and the third."""
    head: Any = head_of(FeatureDistillation(teacher="t"), 6, 10)
    assert [(one.in_features, one.out_features) for one in head if isinstance(one, nn.Linear)] == [
        (6, 12),
        (12, 6),
        (6, 12),
        (12, 10),
    ]
    kinds = [type(one).__name__ for one in head]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear"] * 2
    assert head_of(FeatureDistillation(teacher="t", hidden_dim=5), 6, 10)[0].out_features == 5  # type: ignore[index]


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ({}, {"loss", "pooled_loss"}),
        ({"map_weight": 1}, {"loss", "pooled_loss", "map_loss"}),
        ({"pooled_weight": 0, "map_weight": 1}, {"loss", "map_loss"}),
    ],
)
def test_terms_of_weight_zero_are_not_computed(
    weights: dict[str, float], names: set[str], make_given: InputsMaker
) -> None:
    given = make_given({"name": "feature-distillation", **weights})
    task = FeatureDistillationTask(given).train()
    batch = batch_of(task, given, 4)
    found = task(batch, batch.rng(0))
    found["loss"].backward()
    assert found.keys() == names and len(task.heads) == len(names) - 1
    gradient = task.backbone.get_parameter("conv1.weight").grad
    assert gradient is not None and gradient.abs().max() > 0


def test_without_a_head_the_student_gives_the_feature_of_the_teacher(make_given: InputsMaker, solver: Path) -> None:
    """Maps and further teachers have linear heads."""
    method = {**BOTH, "head": "none", "further_teachers": [{"teacher": "s", "teacher_layer": "fc7"}]}
    given = make_given(method, ResNet18(width_mult=0.125, img_size=64, embed_dim=64))
    task = FeatureDistillationTask(replace(given, further_teachers=(solver,))).eval()
    assert task.layer == "representation"
    kinds = {name: type(head).__name__ for name, head in task.heads.items()}
    assert kinds == {"pooled": "Identity", "map": "Linear", "pooled2": "Linear"}
    batch = batch_of(task, given, 16)
    views = task.views(batch, batch.rng(0))
    assert task._online is not None
    with torch.no_grad():
        found = task(batch, batch.rng(0))
        student = task.backbone(normalize(views, task.normalization))["representation"]
        teacher = task._online(views)
    assert found["pooled_loss"].item() == pytest.approx(
        plain_loss("cosine", student.numpy(), teacher.numpy()), rel=1e-5
    )


def test_without_a_head_other_dimensions_are_refused(make_given: InputsMaker) -> None:
    wanted = r"layer pool of the student has 128 dimensions, and the teacher's feature 64; set `embed_dim: 64`"
    with pytest.raises(TrainingError, match=wanted):
        FeatureDistillationTask(make_given({**BOTH, "head": "none"}, ResNet18(width_mult=0.25, img_size=64)))


def test_several_teachers_add_their_losses(make_given: InputsMaker, teacher: Path, solver: Path) -> None:
    """Each term of the second teacher is what it would be alone, with the same head."""
    options = {
        "map_weight": 0.5,
        "teacher_map_layer": "conv4_2",
        "teacher_layer": "conv5_1",
        "teacher_pool": {"avg": 1},
    }
    single = make_given({**BOTH, **options, "teacher_normalization": "standardize"}, teacher=solver)
    given = make_given(
        {
            **BOTH,
            "teacher_normalization": "standardize",
            "further_teachers": [{"teacher": "s", "pooled_weight": 3, **options}],
        }
    )
    both = FeatureDistillationTask(replace(given, further_teachers=(solver,))).eval()
    first, second = (
        FeatureDistillationTask(one).eval()
        for one in (make_given({**BOTH, "teacher_normalization": "standardize"}), single)
    )
    for name in ("pooled", "map"):
        first.heads[name].load_state_dict(both.heads[name].state_dict())
        second.heads[name].load_state_dict(both.heads[f"{name}2"].state_dict())
    batch = batch_of(both, given)
    found: list[dict[str, Tensor]] = []
    for task in (first, second, both):
        task.on_train_start(given.index, CPU)
        with torch.no_grad():
            found.append(task(batch, batch.rng(0)))
    assert found[2].keys() == {"loss", "pooled_loss", "map_loss", "pooled2_loss", "map2_loss"}
    for name in ("pooled", "map"):
        assert found[2][f"{name}_loss"].item() == pytest.approx(found[0][f"{name}_loss"].item(), rel=1e-5)
        assert found[2][f"{name}2_loss"].item() == pytest.approx(found[1][f"{name}_loss"].item(), rel=1e-5)
    weighted = found[0]["loss"] + 3 * found[1]["pooled_loss"] + 0.5 * found[1]["map_loss"]
    assert found[2]["loss"].item() == pytest.approx(weighted.item(), rel=1e-5)
    assert both.chance_loss > first.chance_loss


def test_stage_trains_with_several_teachers(teacher: Path, solver: Path, objects_path: Path, tmp_path: Path) -> None:
    method = {
        "name": "feature-distillation",
        "further_teachers": [{"teacher": "s", "teacher_layer": "fc7", "map_weight": 1}],
    }
    output = tmp_path / "s" / "manifest.json"
    words = ["student", "--spec", spec_of(method, steps=2).canonical(), "--data", str(objects_path)]
    words += ["--teacher", str(teacher), "--further-teachers", str(solver), "--output", str(output), "--threads", "1"]
    assert main(words) == 0
    content = read_json(output)
    assert {"pooled_loss", "pooled2_loss", "map2_loss"} <= content["summary"].keys()
    assert content["inputs"]["further_teachers"] == [file_digest(solver)]


def test_training_lowers_the_loss(make_given: InputsMaker) -> None:
    from ssltransfer.training.train_step import Trainer

    given = make_given(
        {**BOTH, "head": "mlp", "teacher_normalization": "standardize"},
        ResNet18(width_mult=0.125, img_size=64),
        optimizer="adam",
        lr=0.003,
        weight_decay=0.0,
    )
    task = FeatureDistillationTask(given).train()
    task.on_train_start(given.index, CPU)
    trainer = Trainer(task, given.spec.schedule, 0, CPU)
    batch = batch_of(task, given, 16)
    for _ in range(30):
        found = trainer.forward_backward(batch).read()
        trainer.optimizer_step(given.spec.schedule.lr)
    assert found["loss"] < 0.5 * task.chance_loss


def test_vectors_are_refused_as_maps(make_given: InputsMaker) -> None:
    with pytest.raises(LayerError, match=r"^students.method.map_layer: fc7 is a vector without locations; name maps: "):
        FeatureDistillationTask(make_given({**BOTH, "map_layer": "fc7"}))
    with pytest.raises(LayerError, match=r"manifest.json: pool is a vector without locations; name maps: conv1, "):
        FeatureDistillationTask(make_given({**BOTH, "teacher_map_layer": "pool"}))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"pooled_weight": 0}, "both are 0"),
        ({"map_layer": "conv4"}, "`map_layer` is not used with a `map_weight` of 0"),
        ({"map_loss": "l2"}, "`map_loss` is not used"),
        ({"pooled_weight": 0, "map_weight": 1, "layer": "fc7"}, "`layer` is not used with a `pooled_weight` of 0"),
        ({"map_weight": 1, "precompute_teacher": True}, "maps cannot be precomputed"),
        ({"head": "linear", "hidden_dim": 8}, "`hidden_dim` is not used without an mlp"),
        ({"head": "none", "pooled_weight": 0, "map_weight": 1}, "give `pooled_weight`"),
        ({"head": "none", "teacher_normalization": "whiten"}, "remove `teacher_normalization`"),
        (
            {"further_teachers": [{"teacher": "s"}], "precompute_teacher": True},
            "several teachers cannot be precomputed",
        ),
        ({"further_teachers": [{"teacher": "s", "pooled_weight": 0}]}, "both are 0"),
        ({"further_teachers": [{"teacher": "s", "teacher_map_layer": "conv4"}]}, "`teacher_map_layer` is not used"),
        ({"further_teachers": [{"teacher": "s"}], "map_layer": "conv4"}, "`map_layer` is not used"),
    ],
)
def test_contradictory_options_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        FeatureDistillation(teacher="t", **wrong)
