"""Pretext tasks in a training loop of one's own, equal to what the pretext stage does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ssltransfer
from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.config.base import ConfigError
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import TASKS
from ssltransfer.models.weights import read_model
from ssltransfer.stages import pretext

BACKBONE = {"name": "resnet18", "width_mult": 0.125, "img_size": 64}
SMALL: dict[str, dict[str, Any]] = {
    "exemplar": {"embed_dim": 16},
    "jigsaw-kolesnikov": {"embed_dim": 16, "hidden_dim": 16},
}


def test_own_loop_gives_the_weights_of_the_stage(objects: Index, objects_path: Path, tmp_path: Path) -> None:
    spec = Pretext.model_validate(
        {
            "task": {"name": "rotation", "hidden_dim": 32},
            "backbone": BACKBONE,
            "data": "d",
            "schedule": {"steps": 4, "batch_size": 8, "lr": 0.01, "momentum": 0.9, "weight_decay": 0},
            "seed": 3,
        }
    )
    pretext.run(spec, data=objects_path, output=tmp_path / "m" / "manifest.json", threads=1)
    expected = read_model(tmp_path / "m" / "manifest.json").backbone.state_dict()
    task = ssltransfer.pretext_task({"name": "rotation", "hidden_dim": 32}, BACKBONE, seed=3)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.01, momentum=0.9)
    task.train()
    seen = 0
    for batch in ssltransfer.batches(task, objects, 8, epochs=4 * 8 / len(objects), seed=3):
        loss = task(batch, batch.rng(3))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += len(batch)
    assert seen == 32
    start = ssltransfer.pretext_task("rotation", BACKBONE, seed=3).backbone.state_dict()
    for name, value in task.backbone.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)
    assert (start["conv1.weight"] - expected["conv1.weight"]).abs().max() > 2e-3


NAMES = {str(task.model_fields["name"].default) for task in TASKS if task.is_trainable}
# Refused (see below), and a task on the first frames of videos.
ELSEWHERE = {"multi-task", "motion-segmentation"}


@pytest.mark.parametrize("name", sorted(NAMES - ELSEWHERE))
def test_every_trained_task_is_usable_alone(name: str, objects: Index) -> None:
    options = {"name": name, **SMALL.get(name, {})}
    task = ssltransfer.pretext_task(options, BACKBONE)
    batch = next(ssltransfer.batches(task, objects.root, 4))
    losses = task(batch, batch.rng(0))
    assert torch.isfinite(losses["loss"]) and losses["loss"].requires_grad


@pytest.mark.parametrize(
    ("task", "backbone", "message"),
    [
        ("rotatoin", "resnet18", "task: unknown name 'rotatoin'; did you mean 'rotation'"),
        ({"name": "rotation", "hidden": 3}, "resnet18", "task.hidden: unknown key 'hidden'; did you mean 'hidden_dim'"),
        ("rotation", "resnet81", "backbone: unknown name 'resnet81'"),
        ("random", "resnet18", "task: random is not trained on its own"),
        (
            {"name": "multi-task", "tasks": {"a": {"task": "rotation"}}},
            "resnet18",
            "task: multi-task is not trained on its own",
        ),
    ],
)
def test_wrong_names_and_options_are_one_sentence(task: Any, backbone: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ssltransfer.pretext_task(task, backbone)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_a_task_on_videos_refuses_images(objects: Index) -> None:
    task = ssltransfer.pretext_task("motion-segmentation", BACKBONE)
    with pytest.raises(ArtifactError, match="has no motion masks; name a dataset of format video"):
        next(ssltransfer.batches(task, objects.root, 4))


def test_batches_are_those_of_the_training_order(objects: Index) -> None:
    task = ssltransfer.pretext_task("rotation", BACKBONE)
    once = [batch.ids.tolist() for batch in ssltransfer.batches(task, objects, 10, epochs=2, seed=1)]
    again = [batch.ids.tolist() for batch in ssltransfer.batches(task, objects, 10, epochs=2, seed=1)]
    other = [batch.ids.tolist() for batch in ssltransfer.batches(task, objects, 10, epochs=2, seed=2)]
    assert once == again != other and {len(ids) for ids in once} == {10}
    n = len(objects)
    seen = [sample for ids in once for sample in ids]
    assert len(seen) == 2 * n // 10 * 10 and sorted(seen[:n]) == list(range(n))
