"""What moves by itself: pieces against plain references, and the laws that the whole must hold."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import (  # type: ignore[attr-defined]
    gaussian_filter,
    map_coordinates,
    median_filter,
    sobel,
    uniform_filter,
)

from ssltransfer.config.formats import MotionOptions
from ssltransfer.data import motion
from ssltransfer.data.videos import read_frames
from toyworld.split_writer import make_rng
from toyworld.subsets import clips

HEIGHT, WIDTH = 120, 160
SMALL = MotionOptions(size=(HEIGHT, WIDTH))


def texture(seed: int, height: int, width: int) -> NDArray[np.float64]:
    """Smooth noise of several sizes, 0 to 255."""
    rng = np.random.default_rng(seed)
    found = sum(s * gaussian_filter(rng.standard_normal((height, width)), s, mode="wrap") for s in (1.5, 4.0))
    return np.asarray(np.clip(127 + 45 * found / np.std(found), 0, 255))


def filmed(frames: int, pan: tuple[float, float], zoom: float = 1.0, square: tuple[float, float] | None = None):
    """Frames of a panned and zoomed ground, and where a square is that goes its own way, relative to the image."""
    ground, thing = texture(0, 360, 480), texture(1, 40, 40)
    found, masks = [], []
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    for t in range(frames):
        scale = zoom**t
        at = ((y - 60) * scale + 180 + pan[1] * t, (x - 80) * scale + 240 + pan[0] * t)
        frame = map_coordinates(ground, at, order=1, mode="wrap")
        mask = np.zeros((HEIGHT, WIDTH), bool)
        if square is not None:
            top, left = 40 + square[1] * t, 60 + square[0] * t
            mask = (y >= top) & (y < top + 40) & (x >= left) & (x < left + 40)
            frame[mask] = map_coordinates(thing, (y[mask] - top, x[mask] - left), order=1, mode="nearest")
        found.append(np.rint(frame).astype(np.uint8))
        masks.append(mask)
    return found, masks


def labeled(frames: list[np.ndarray], options: MotionOptions = SMALL) -> np.ndarray:
    pairs = itertools.pairwise(frames)
    return motion.label(frames[0], [motion.motion_between(*pair, options.flow) for pair in pairs], options)


def cells_of(mask: np.ndarray) -> np.ndarray:
    height, width = mask.shape
    return np.asarray(mask.reshape(height // 8, 8, width // 8, 8).mean((1, 3)) >= 0.5)


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found.astype(bool) & truth).sum() / (found.astype(bool) | truth).sum())


@pytest.mark.parametrize(("flow", "least"), [("dis", 0.6), ("farneback", 0.45)])  # the latter blurs edges
def test_segment_finds_square_on_panned_background(flow: str, least: float):
    frames, masks = filmed(10, pan=(2.0, -1.0), square=(1.5, 1.0))
    found = labeled(frames, SMALL.model_copy(update={"flow": flow}))
    assert found.shape == (15, 20) and found.dtype == np.uint8
    assert iou(found, cells_of(masks[0])) >= least


def test_segment_ignores_camera_pan_and_zoom():
    frames, masks = filmed(10, pan=(2.5, 1.0), zoom=0.99, square=(1.2, -1.0))
    assert iou(labeled(frames), cells_of(masks[0])) >= 0.6
    alone, _ = filmed(10, pan=(2.5, 1.0), zoom=0.99)
    assert labeled(alone).mean() < 0.02


def test_segment_still_image_and_still_camera():
    still, masks = filmed(10, pan=(0, 0))
    assert not labeled(still).any()
    moving, masks = filmed(10, pan=(0, 0), square=(2.0, 0.0))
    assert iou(labeled(moving), cells_of(masks[0])) >= 0.6


def test_flow_is_median_filtered_shift():
    (first, second), _ = filmed(2, pan=(3.0, -2.0))
    found = motion.motion_between(first, second, "dis")
    inner = found.flow[20:-20, 20:-20]
    assert np.abs(np.median(inner, axis=(0, 1)) - (-3.0, 2.0)).max() < 0.1
    raw = motion._dis().calc(first, second, None)
    for axis in (0, 1):
        assert np.array_equal(found.flow[..., axis], median_filter(raw[..., axis], 3, mode="nearest"))


def test_homography_is_camera_motion_if_enough_corners():
    (first, second), _ = filmed(2, pan=(3.0, -2.0), zoom=0.98)
    found = motion.motion_between(first, second, "dis")
    points = motion.grid(HEIGHT, WIDTH)
    x, y = (points - (80, 60)).T  # the ground that was at a pixel of the first is seen here in the second
    wanted = np.stack([(x - 3.0) / 0.98 + 80, (y + 2.0) / 0.98 + 60], axis=1)
    assert np.abs(found.seen(points) - wanted).max() < 0.6
    flat = np.full((HEIGHT, WIDTH), 90, np.uint8)
    assert np.array_equal(motion.motion_between(flat, flat, "dis").camera, np.eye(3))


def test_track_drops_points_without_texture():
    """The smaller eigenvalue of summed products of Sobel's derivatives, of plain numpy, gives the same points."""
    frame = texture(2, HEIGHT, WIDTH)
    frame[:, 80:] = 120.0
    frame[60:62, 80:] = 121.0  # a faint edge, not a corner
    frame = np.rint(frame).astype(np.uint8)
    points = motion.grid(HEIGHT, WIDTH)
    values = frame.astype(np.float64)
    dx, dy = (sobel(values, axis, mode="mirror") for axis in (1, 0))
    a, b, c = (uniform_filter(part, 3, mode="mirror") for part in (dx * dx, dx * dy, dy * dy))
    least = (a + c) / 2 - np.sqrt(((a - c) / 2) ** 2 + b * b)
    column, row = points.astype(int).T
    wanted = least[row, column] > 0.001 * least.max()
    found = motion.textured(frame, points)
    assert (found == wanted).mean() > 0.995 and not found[points[:, 0] > 85].any() and found[points[:, 0] < 75].all()


def still(count: int) -> list[motion.Motion]:
    return [motion.Motion(np.zeros((HEIGHT, WIDTH, 2), np.float32), np.eye(3)) for _ in range(count)]


def test_track_moves_from_one_pixel_in_any_frame():
    first = np.rint(texture(0, HEIGHT, WIDTH)).astype(np.uint8)
    motions = still(9)
    motions[4].flow[:, :80, 0] = 0.99
    motions[5].flow[:, 80:, 1] = 1.0
    start, moves = motion.follow(first, motions)
    assert np.array_equal(moves, start[:, 0] >= 80) and len(start) > 700
    # Movement of the camera does not count: the same flow, and a camera that moves along.
    along = [motion.Motion(m.flow + np.float32(3), np.array([[1, 0, 3], [0, 1, 3], [0, 0, 1.0]])) for m in motions]
    start, moves = motion.follow(first, along)
    kept = start[:, 0] < 50  # they stay on their half
    assert not moves[kept].any() and start[:, 0].max() <= WIDTH - 1 - 27


def test_track_drops_jumps_and_leaving_points():
    first = np.rint(texture(0, HEIGHT, WIDTH)).astype(np.uint8)
    everything = len(motion.follow(first, still(9))[0])
    jump = still(9)
    jump[3].flow[:, :60, 0] = 21.0
    start, _ = motion.follow(first, jump)
    assert len(start) < everything and start[:, 0].min() > 59
    smaller = still(9)
    smaller[3].flow[:, :60, 0] = 20.0
    assert len(motion.follow(first, smaller)[0]) == everything
    out = still(9)
    for step in out:
        step.flow[..., 1] = 5.0
    assert motion.follow(first, out)[0][:, 1].max() <= HEIGHT - 1 - 45


def test_cells_of_two_points():
    """The left cell has 25 moving pixels and 15 still ones, the right cell the other 10 still ones."""
    start, moves = np.array([[2.0, 2.0], [7.0, 2.0]]), np.array([True, False])
    assert motion.paint(start, moves, 8, 16, "background").tolist() == [[1, 0]]
    assert motion.paint(start, ~moves, 8, 16, "background").tolist() == [[0, 1]]
    assert motion.paint(start[:1], moves[:1], 8, 16, "foreground").tolist() == [[1, 1]]


def test_cells_are_labeled_by_majority():
    start = np.array([[2.0, 2.0], [7.0, 2.0], [2.0, 7.0], [42.0, 42.0], [47.0, 42.0]])
    moves = np.array([True, False, False, True, False])
    found = motion.paint(start, moves, 64, 64, "background")
    assert found.shape == (8, 8)
    # In the first cell 25 pixels move and 30 do not; in the one at (5, 5) 25 do and 15 do not.
    assert found[0, 0] == 0 and found[5, 5] == 1 and found.sum() == 1
    literal = motion.paint(start, moves, 64, 64, "foreground")
    assert literal[0, 0] == 0 and literal[0, 1] == 0 and literal[3, 3] == 1 and literal.sum() == 64 - 4


def test_segment_synthetic_clips_approximately():
    """Small things of cells of eight pixels, in ten frames in which they sweep over the ground beside them."""
    options = MotionOptions()
    scores, shares = [], []
    for number in range(6):
        frames = clips.render_clip(make_rng(0, "clips", "train", number), 96)
        gray = [motion.gray(motion.prepare(np.asarray(frame.image), options.size)) for frame in frames[:10]]
        mask = motion.prepare(np.repeat(frames[0].mask[..., None], 3, axis=2).astype(np.uint8) * 255, options.size)
        truth = cells_of(mask[..., 0] > 127)
        scores.append(iou(labeled(gray, options), truth))
        shares.append(truth.mean())
    assert np.mean(scores) > 0.4 and np.mean(scores) > 5 * np.mean(shares)


@pytest.mark.real
def test_segment_davis_clips(real_data: Path, capsys: pytest.CaptureFixture[str]):
    """A dog, a car and a swan whose water moves as much as it does; masks say the animal or the car alone."""
    options, found = MotionOptions(), {}
    root = real_data / "video" / "DAVIS"
    for name in ("dog", "car-shadow", "blackswan"):
        frames, masks = (list(read_frames(root / kind / "480p" / name)) for kind in ("JPEGImages", "Annotations"))
        gray = [motion.gray(motion.prepare(frame, options.size)) for frame in frames[:10]]
        truth = cells_of(motion.prepare(masks[0], options.size)[..., 0] > 127)
        found[name] = iou(labeled(gray, options), truth)
    with capsys.disabled():
        print(found)
    assert found["dog"] > 0.6 and found["car-shadow"] > 0.4 and found["blackswan"] > 0.15
