"""Clips: files, and masks of exactly what the motion of the camera does not explain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import affine_transform, binary_dilation  # type: ignore[attr-defined]

from toyworld import generate
from toyworld.layer import OVERSAMPLE
from toyworld.split_writer import make_rng
from toyworld.subsets import clips


def test_clips_have_the_layout_of_davis(tmp_path: Path) -> None:
    generate("clips", tmp_path, split="train", num_images=2, size=48)
    lines = (tmp_path / "ImageSets" / "480p" / "train.txt").read_text().splitlines()
    assert len(lines) == 2 * clips.NUM_FRAMES
    assert lines[0] == "/JPEGImages/480p/train-00000/00000.jpg /Annotations/480p/train-00000/00000.png"
    for line in lines:
        image, mask = (Image.open(tmp_path / name[1:]) for name in line.split())
        assert image.size == mask.size == (85, 48)
        assert set(np.unique(np.asarray(mask))) <= {0, 255}


def test_camera_motion_explains_all_pixels_outside_the_masks() -> None:
    """Warp each frame by the camera motion onto the next: the differences are inside the masks."""
    inside, outside, still, moved = [], [], [], []
    for number in range(4):
        frames = clips.render_clip(make_rng(0, "clips", "train", number), 64)
        for now, then in zip(frames[:-1:3], frames[1::3], strict=False):
            a, b = (np.asarray(frame.image, np.float32).mean(-1) for frame in (now, then))
            back = _onto(then, now)
            seen = _warp(a, back, order=1)
            trusted = _warp(np.ones_like(a), back, order=0) > 0
            either = binary_dilation(then.mask | (_warp(now.mask.astype(np.float32), back, 0) > 0), iterations=3)
            error = np.abs(seen - b)
            outside.append(error[trusted & ~either].mean())
            still.append(np.abs(a - b)[trusted & ~either].mean())
            only = then.mask & ~(_warp(now.mask.astype(np.float32), back, 1) > 0)
            moved.append(only.sum() / then.mask.sum())
            inside.append(error[trusted & only].mean())
    assert np.mean(inside) > 5 * np.mean(outside)
    assert np.mean(outside) < 0.75 * np.mean(still)
    assert np.median(moved) > 0.05


def _onto(then: clips.Frame, now: clips.Frame) -> tuple[np.ndarray, np.ndarray]:
    """Return the map (row, column) from pixels of one frame to those of the other that show the same background."""
    linear = now.camera.linear @ np.linalg.inv(then.camera.linear)
    shift = now.camera.shift - linear @ then.camera.shift
    half = np.full(2, 0.5)
    shift = (linear @ (half * OVERSAMPLE) + shift) / OVERSAMPLE - half
    return linear[::-1, ::-1], shift[::-1]


def _warp(values: np.ndarray, onto: tuple[np.ndarray, np.ndarray], order: int) -> np.ndarray:
    return affine_transform(values, onto[0], onto[1], order=order)
