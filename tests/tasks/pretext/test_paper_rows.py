"""Every pair of task and network that the papers' configurations name is built from them and learns, in small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssltransfer.artifacts.index import Index
from ssltransfer.config import read_config
from ssltransfer.config.entities import Pretext
from ssltransfer.config.schedule import Schedule
from ssltransfer.config.tasks import Tiles
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.models.build import build_backbone
from ssltransfer.tasks.pretext.base import build_task
from ssltransfer.training.devices import Devices
from ssltransfer.training.train_step import Trainer
from tests.helpers.small_tasks import train_step

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[3] / "config"
CPU = Devices(torch.device("cpu"), 0)
TILE = 48
CUT = Tiles(crop=3 * TILE + 6, tile=TILE, jitter=1, channel_shift=0)
SMALL: dict[str, dict[str, Any]] = {
    "jigsaw": {"tiles": CUT, "resize": 160, "hidden_dim": 16, "permutations": 6},
    "jigsaw++": {"tiles": CUT, "resize": 160, "hidden_dim": 16, "permutations": 6},
    "jigsaw-kolesnikov": {
        "tiles": CUT,
        "resize": 160,
        "hidden_dim": 16,
        "permutations": 6,
        "permutations_per_image": 2,
        "embed_dim": 8,
    },
    "relative-patch-location": {"tiles": CUT, "resize": 160, "hidden_dim": 16, "embed_dim": 8},
    "relative-position": {"grids_per_image": 1, "hidden_dim": 16},
    "relative-position-residual": {"grids_per_image": 1, "hidden_dim": 16, "pairs_per_image": 4},
    "rotation": {"hidden_dim": 16},
    "exemplar": {"num_views": 2, "embed_dim": 8},
    "exemplar-patches": {},
    "colorization": {"resize": 64, "hidden_dim": 16},
    "motion-segmentation": {"input": (64, 96), "hidden_dim": 16},
}


def rows() -> dict[str, Pretext]:
    """One for each task, network and form of it: widths and seeds apart."""
    found: dict[str, Pretext] = {}
    for name in ("noroozi2018", "kolesnikov2019", "doersch2017"):
        for pretext in read_config(CONFIG / f"{name}.yaml").pretexts.values():
            for part in pretext.parts.values():
                if part.task.is_trainable:
                    forms = ("last_relu", "embed_dim", "bn", "output_stride", "block4")
                    form = [
                        f"{key} {getattr(part.backbone, key)}" for key in forms if getattr(part.backbone, key, None)
                    ]
                    key = f"{name}: {part.task.name}, {part.backbone.name}, {', '.join(form)}".rstrip(", ")
                    found.setdefault(key.replace(str(getattr(part.backbone, "embed_dim", None)), "N"), part)
    return found


ROWS = rows()


def test_paper_rows_cover_every_task() -> None:
    tasks = {row.task.name for row in ROWS.values()}
    assert tasks == set(SMALL) and len(ROWS) > 30


@pytest.mark.parametrize("name", ROWS)
def test_paper_row_trains(name: str, objects: Index) -> None:
    row = ROWS[name]
    tiles = "tiles" in SMALL[row.task.name]
    smaller: dict[str, Any] = {"width_mult": 0.06 if row.backbone.name.startswith("vgg") else 0.125}
    smaller["img_size"] = TILE if tiles else 96
    if getattr(row.backbone, "embed_dim", None):
        smaller["embed_dim"] = 16
    backbone = row.backbone.model_copy(update=smaller)
    options = row.task.model_copy(update=SMALL[row.task.name])
    task = build_task(options, backbone, 0)
    schedule = Schedule(steps=2, batch_size=4, lr=1e-3)
    if row.task.name == "motion-segmentation":
        rng = np.random.default_rng(0)
        images, cells = (
            torch.from_numpy(rng.integers(0, top, shape, np.uint8))
            for top, shape in ((256, (4, 3, 64, 96)), (2, (4, 8, 12)))
        )
        batch = Batch(images, torch.arange(4), torch.zeros(4, dtype=torch.int64), {"motion": cells})
    else:
        batch = next(load_batches(objects, task.transform, sequential_keys(range(4), 4), seed=0))
    task.train()
    task.on_train_start(objects, CPU)
    trainer = Trainer(task, schedule, 0, CPU)
    before = {key: value.clone() for key, value in task.backbone.state_dict().items()}
    first = next(key for key, value in before.items() if value.ndim == 4)
    for _ in range(2):
        assert np.isfinite(train_step(trainer, batch)["loss"])
    after = task.backbone.state_dict()
    # The gradient comes down to the first convolution.
    assert not torch.equal(before[first], after[first])
    # What is exported: the same tensors in the network that the configuration names.
    build_backbone(backbone, include_top=False).load_state_dict(after)
