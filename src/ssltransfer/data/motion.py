"""Motion segmentation of a clip: track points by dense flow and subtract the motion of the camera.

The parts of improved dense trajectories (Wang & Schmid 2013) that Doersch & Zisserman 2017 use, implemented with
OpenCV (protocols 1.8).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ssltransfer.config.formats import MotionOptions
from ssltransfer.data.videos import opencv

CELL = 8  # pixels a side: a label is as fine as the backbone's map at output stride 8
STEP = 5  # pixels between points, and side of what a point paints
QUALITY = 0.001  # of corners and of points, as a share of the best one in the frame
CORNERS, CORNER_DISTANCE = 1000, 5.0  # most, and least pixels between two
REPROJECTION, INLIERS = 1.0, 50  # pixels; minimum inlier count to accept a homography
STILL = 1.0  # pixels a frame
JUMP, JUMP_SHARE = 20.0, 0.7  # pixels; of the whole way

_PLAIN = np.eye(3)


@dataclass(frozen=True)
class Motion:
    """Motion between two frames of (H, W) pixels.

    Attributes:
        flow: float32 (H, W, 2), median-filtered (3x3): displacement in x and y of each pixel of the first frame.
        camera: float64 (3, 3), homography from the first to the second; the identity if too few points agree.
    """

    flow: np.ndarray
    camera: np.ndarray

    def moved(self, points: np.ndarray) -> np.ndarray:
        """Move points, float64 (N, 2), x and y in pixels, by the flow at the nearest pixel."""
        column, row = np.rint(points).astype(np.int64).T
        return np.asarray(points + self.flow[row, column])

    def seen(self, points: np.ndarray) -> np.ndarray:
        """Move points by the motion of the camera alone: float64 (N, 2)."""
        lifted = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ self.camera.T
        return np.asarray(lifted[:, :2] / lifted[:, 2:])


def prepare(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (height, width, 3): area-averaged to shrink, bilinear to enlarge; ignores the aspect."""
    cv2, (height, width) = opencv(), size
    if frame.shape[:2] == size:
        return frame
    shrinks = frame.shape[0] >= height and frame.shape[1] >= width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (width, height), interpolation=method))


def gray(frame: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) RGB -> uint8 (H, W)."""
    cv2 = opencv()
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))


def motion_between(first: np.ndarray, second: np.ndarray, method: str) -> Motion:
    """Flow and camera motion from one gray frame to the next, uint8 (H, W) each.

    `method` is dis (Kroeger et al. 2016, OpenCV's medium preset) or farneback (its tutorial's constants).
    """
    cv2 = opencv()
    if method == "dis":
        flow = _dis().calc(first, second, None)
    else:
        flow = cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)
    flow = np.stack([cv2.medianBlur(np.ascontiguousarray(flow[..., axis]), 3) for axis in (0, 1)], axis=-1)
    return Motion(flow, _camera(first, flow))


@cache
def _dis() -> Any:
    cv2 = opencv()
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def _camera(first: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The homography that most corners agree on."""
    cv2 = opencv()
    corners = cv2.goodFeaturesToTrack(first, CORNERS, QUALITY, CORNER_DISTANCE)
    if corners is None or len(corners) < INLIERS:
        return _PLAIN
    points = corners.reshape(-1, 2).astype(np.float64)
    found, agree = cv2.findHomography(points, Motion(flow, _PLAIN).moved(points), cv2.RANSAC, REPROJECTION)
    return _PLAIN if found is None or int(agree.sum()) < INLIERS else np.asarray(found)


def textured(first: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which points can be tracked: bool (N,), by the smaller eigenvalue of the structure tensor around them."""
    values = opencv().cornerMinEigenVal(first, 3)
    column, row = points.astype(np.int64).T
    return np.asarray(values[row, column] > QUALITY * values.max())


def grid(height: int, width: int) -> np.ndarray:
    """The center of each 5x5 square, float64 (N, 2), x and y, row by row."""
    y, x = np.mgrid[STEP // 2 : height : STEP, STEP // 2 : width : STEP]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)


def follow(first: np.ndarray, motions: Sequence[Motion]) -> tuple[np.ndarray, np.ndarray]:
    """Track a grid of points from the first frame, uint8 (H, W), to the last.

    Drops points without texture, points that leave the frame and points with a sudden jump (more than 70 % of their
    whole path, and more than 20 pixels).

    Returns:
        float64 (N, 2), x and y of the points in the first frame; bool (N,), whether each moves independently of the
        camera in at least one frame.
    """
    height, width = first.shape
    start = grid(height, width)
    start = start[textured(first, start)]
    place, inside = start, np.ones(len(start), bool)
    ways, own = np.zeros((len(motions), len(start))), np.zeros((len(motions), len(start)))
    last = np.array([width - 1, height - 1])
    for step, motion in enumerate(motions):
        # Points outside the frame stay where they left it.
        there = motion.moved(place)
        ways[step] = np.linalg.norm(there - place, axis=1)
        own[step] = np.linalg.norm(there - motion.seen(place), axis=1)
        inside &= ((there >= 0) & (there <= last)).all(axis=1)
        place = np.where(inside[:, None], there, place)
    longest = ways.max(axis=0)
    valid = inside & ~((longest > JUMP) & (longest > JUMP_SHARE * ways.sum(axis=0)))
    return start[valid], own.max(axis=0)[valid] >= STILL


def paint(start: np.ndarray, moves: np.ndarray, height: int, width: int, default_label: str) -> np.ndarray:
    """Label cells of 8x8 pixels, uint8 (height / 8, width / 8): 1 if at least half of the painted pixels move.

    Each point that `follow` returns paints the 5x5 pixels around its start. A cell without painted pixels gets
    `default_label`.
    """
    painted, moving = np.zeros((height, width)), np.zeros((height, width))
    column, row = start.astype(np.int64).T
    reach = STEP // 2
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            y, x = row + down, column + right
            there = (y < height) & (x < width)
            painted[y[there], x[there]] = 1
            moving[y[there], x[there]] = moves[there]
    cells = [part.reshape(height // CELL, CELL, width // CELL, CELL).sum((1, 3)) for part in (painted, moving)]
    foreground = np.where(cells[0] > 0, 2 * cells[1] >= cells[0], default_label == "foreground")
    return foreground.astype(np.uint8)


def label(first: np.ndarray, motions: Sequence[Motion], options: MotionOptions) -> np.ndarray:
    """Segment the independently moving foreground of a clip: uint8 (height / 8, width / 8), 1 foreground.

    `first` is the first frame, gray, uint8 (H, W); `motions` lead from each frame to the next.
    """
    height, width = first.shape
    return paint(*follow(first, motions), height, width, options.default_label)
