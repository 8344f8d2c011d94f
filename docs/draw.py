"""Images of the documents: inputs and targets of every trained pretext task, made by the tasks' own code.

Run from the repository root as `python -m docs.draw` (`make docs-images`). The tasks cut, turn and color images of
the embedded world at their published sizes; a small backbone stands for the real one, as no network is run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ssltransfer.artifacts.index import read_index
from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.formats import MotionOptions, Synthetic, Video
from ssltransfer.config.tasks import TASKS, MultiTask
from ssltransfer.config.tasks.base import TaskOptions
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.stages import index as index_stage
from ssltransfer.stages import motion
from ssltransfer.tasks.pretext.base import build_task
from toyworld import generate

FOLDER = Path(__file__).parent / "images"
IMAGES = 4
SIDE, GAP, HEADER = 150, 6, 22  # pixels: the longer side of an image, between images, above a column
WIDTH = 950  # pixels: of all columns, whose images are smaller where there are many
BACKBONE = CaffeNet(width_mult=0.125)
QUALITY = 72  # of WebP


def trained() -> list[type[TaskOptions]]:
    """The tasks that have something to show: several of them on one backbone show what each does."""
    return [task for task in TASKS if task.is_trainable and task is not MultiTask]


def file_of(task: type[TaskOptions]) -> Path:
    """Where a task's image lies."""
    return FOLDER / f"{task.__module__.rpartition('.')[2]}.webp"


def world(folder: Path) -> dict[str | None, Path]:
    """Indexes of a few embedded images, and of clips (`motion`), which are drawn into the folder."""
    images, videos, clips = (folder / f"{name}.parquet" for name in ("images", "videos", "clips"))
    spec = Synthetic(root=str(folder), subset="scenes", split="docs", num_images=IMAGES, size=512)
    index_stage.run(spec, output=images, threads=1)
    generate("clips", folder / "films", split="docs", num_images=IMAGES, size=240)
    video = Video(root=str(folder / "films"), split="docs", motion=MotionOptions(clip_stride=12))
    index_stage.run(video, output=videos, threads=1)
    motion.run(video.motion, data=videos, output=clips, threads=1)
    return {None: images, "motion": clips}


def columns_of(task: type[TaskOptions], indexes: Mapping[str | None, Path]) -> list[tuple[str, Tensor]]:
    """What a task shows of the first images of an index that it can learn from."""
    options: Any = task(**({"hidden": 8} if "hidden" in task.model_fields else {}))
    made = build_task(options, BACKBONE, 0)
    keys = sequential_keys(range(IMAGES), IMAGES)
    batch = next(load_batches(read_index(indexes[task.targets]), made.transform, keys, seed=0))
    with torch.no_grad():
        return list(made.show(batch, batch.rng(0)))


def montage(columns: Sequence[tuple[str, Tensor]]) -> Image.Image:
    """Columns of (B, 3, h, w) images on white, each under its caption."""
    side = min(SIDE, WIDTH // len(columns))
    shown = [(caption, _fitted(images, side)) for caption, images in columns]
    width = sum(images.shape[3] + GAP for _, images in shown) - GAP
    height = max(images.shape[2] for _, images in shown) + GAP
    canvas = Image.new("RGB", (width, HEADER + height * len(shown[0][1]) - GAP), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    left = 0
    for caption, images in shown:
        pen.text((left, 3), caption, fill="black", font=font)
        for row, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
            canvas.paste(Image.fromarray(np.ascontiguousarray(image)), (left, HEADER + row * height))
        left += images.shape[3] + GAP
    return canvas


def _fitted(images: Tensor, side: int) -> Tensor:
    """uint8, the longer side as given."""
    scale = side / max(images.shape[2:])
    size = [round(side * scale) for side in images.shape[2:]]
    resized = F.interpolate(images.float(), size, mode="bilinear", antialias=scale < 1, align_corners=False)
    return resized.round().clamp(0, 255).to(torch.uint8)


def main() -> None:
    """Draw them all."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        indexes = world(Path(folder))
        for task in trained():
            montage(columns_of(task, indexes)).save(file_of(task), quality=QUALITY, method=6)
            print(f"{file_of(task)}: {file_of(task).stat().st_size >> 10} kB")


if __name__ == "__main__":
    main()
