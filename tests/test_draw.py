"""The documents' images are those that the tasks' code draws."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssltransfer.config.tasks import TASKS, MultiTask

DOCS = Path(__file__).parents[1] / "docs"
TRAINED = [task for task in TASKS if task.is_trainable and task is not MultiTask]
each = pytest.mark.parametrize("task", TRAINED, ids=lambda task: task.__name__)


@pytest.fixture(scope="module")
def draw() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw", DOCS / "draw.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images(draw: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return draw.world(tmp_path_factory.mktemp("docs"))


@each
def test_draw_every_trained_task_has_an_image_in_docs(task: Any, draw: ModuleType):
    file = draw.file_of(task)
    assert file.stat().st_size < 60_000
    sections = (DOCS / "protocols.md").read_text(encoding="utf-8").split("\n## ")
    (section,) = [part for part in sections if f"(images/{file.name})" in part]
    assert f"(`{task.model_fields['name'].default}`" in section.splitlines()[0]


@pytest.mark.slow
@each
def test_draw_images_are_current(task: Any, draw: ModuleType, images: Any):
    drawn = np.asarray(draw.montage(draw.columns_of(task, images)), dtype=float)
    kept = np.asarray(Image.open(draw.file_of(task)).convert("RGB"), dtype=float)
    assert kept.shape == drawn.shape
    assert np.abs(kept - drawn).mean() < 8  # what WebP loses


def test_draw_montage_has_a_row_per_image(draw: ModuleType):
    columns = [("gray", torch.full((2, 3, 300, 150), 100, dtype=torch.uint8)), ("red", torch.zeros(2, 3, 40, 40))]
    columns[1][1][:, 0] = 255
    shown = np.asarray(draw.montage(columns))
    side, gap, header = draw.SIDE, draw.GAP, draw.HEADER
    assert shown.shape == (header + 2 * (side + gap) - gap, side // 2 + gap + side, 3)
    assert (shown[header : header + side, : side // 2] == 100).all()
    assert (shown[header + side + gap :, side // 2 + gap :] == [255, 0, 0]).all()
    assert (shown[header + side : header + side + gap] == 255).all()
