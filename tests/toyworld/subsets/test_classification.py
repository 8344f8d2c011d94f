"""Subsets with a folder per class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import NearestCentroid
from torchvision.datasets import ImageFolder

from toyworld import generate
from toyworld.split_writer import make_rng
from toyworld.subsets.classification import (
    OBJECT_CLASSES,
    SCENE_CLASSES,
    bird_species,
    render_object,
    render_scene,
)


@pytest.mark.parametrize(("subset", "classes"), [("objects", OBJECT_CLASSES), ("scenes", SCENE_CLASSES)])
def test_classification_writes_a_balanced_image_folder(subset: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    generate(subset, tmp_path, split="train", num_images=2 * len(classes), size=32)
    found = ImageFolder(str(tmp_path / "train"))
    assert tuple(found.classes) == tuple(sorted(classes))
    assert sorted(found.targets) == sorted(2 * list(range(len(classes))))
    assert found[0][0].size == (32, 32)


@pytest.mark.parametrize(
    ("classes", "render"), [(OBJECT_CLASSES, render_object), (SCENE_CLASSES, render_scene)], ids=["objects", "scenes"]
)
def test_mean_color_does_not_reveal_the_class(
    classes: tuple[str, ...], render: Callable[[str, np.random.Generator, int], Image.Image]
) -> None:
    per_class = 14
    means = np.array(
        [
            np.asarray(render(name, make_rng(0, "test", name, i), 24), np.float32).mean((0, 1))
            for i in range(per_class)
            for name in classes
        ]
    )
    labels = np.tile(np.arange(len(classes)), per_class)
    half = len(labels) // 2
    accuracy = NearestCentroid().fit(means[:half], labels[:half]).score(means[half:], labels[half:])
    assert accuracy < 2.5 / len(classes)


def test_retrieval_species_are_disjoint_between_splits_and_differ(tmp_path: Path) -> None:
    for split in ("train", "test"):
        generate("retrieval", tmp_path, split=split, num_images=24, size=32)
    train, test = (set(ImageFolder(str(tmp_path / split)).classes) for split in ("train", "test"))
    assert len(train) == len(test) == 24
    assert not train & test
    species = [tuple(vars(item).values()) for item in bird_species()]
    assert min(sum(a != b for a, b in zip(x, y, strict=True)) for x in species for y in species if x != y) >= 3
