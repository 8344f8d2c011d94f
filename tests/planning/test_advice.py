"""Warnings about doubtful settings: just below and just above each limit."""

from pathlib import Path
from typing import Any

import pytest

from ssltransfer.config import ConfigError, complete
from ssltransfer.planning.advice import advice


def warnings(folder: Path, *, k: int = 50, epochs: float = 16, method: dict[str, Any] | None = None) -> list[str]:
    schedule = {"epochs": epochs, "batch_size": 32}
    return list(
        advice(
            complete(
                {
                    "results": str(folder),
                    "datasets": {
                        "d": {"format": "imagefolder", "root": "d", "split": "train", "num_images_hint": 1000}
                    },
                    "pretexts": {
                        "p": {"task": "rotation", "backbone": "resnet18", "data": "d", "schedule": {"steps": 500}}
                    },
                    "features": {"f": {"model": "p", "layer": "pool"}},
                    "clusters": {"c": {"features": "f", "data": "d", "k": k}},
                    "students": {
                        "s": {
                            "method": method or {"name": "cluster-classification", "cluster": "c"},
                            "data": "d",
                            "backbone": "resnet18",
                            "schedule": schedule,
                        }
                    },
                }
            )
        )
    )


def test_advice_is_silent_at_the_limits(tmp_path: Path) -> None:
    assert warnings(tmp_path) == []
    assert warnings(tmp_path, method={"name": "compress-1q", "teacher": "p", "queue_size": 999}) == []
    assert warnings(tmp_path, method={"name": "compress-2q", "teacher": "p", "momentum": 0.994}) == []


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"k": 51}, "clusters.c.k: 51 clusters of 1000 images are 19.6 images per cluster"),
        ({"epochs": 15}, "students.s.schedule: 469 updates rarely suffice"),
        (
            {"method": {"name": "compress-1q", "teacher": "p", "queue_size": 1000}},
            "students.s.method.queue_size: 1000 features of 1000 images include each image more than once",
        ),
        (
            {"method": {"name": "compress-2q", "teacher": "p"}},
            "students.s.method.momentum: after 500 updates 61% of the momentum encoder are its random start",
        ),
    ],
)
def test_advice_names_the_entry(tmp_path: Path, changes: dict[str, Any], start: str) -> None:
    (line,) = warnings(tmp_path, **changes)
    assert line.startswith(start)


def test_queue_of_a_limited_dataset_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"students\.s\.method\.num_negatives: 300 features of 300 images"):
        complete(
            {
                "results": str(tmp_path),
                "datasets": {"d": {"format": "imagefolder", "root": "d", "split": "train", "limit": 300}},
                "pretexts": {"p": {"task": "random", "backbone": "resnet18"}},
                "students": {
                    "s": {
                        "method": {"name": "crd", "teacher": "p", "num_negatives": 300},
                        "data": "d",
                        "backbone": "resnet18",
                        "schedule": {"steps": 500, "batch_size": 32},
                    }
                },
            }
        )
