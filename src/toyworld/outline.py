"""Outlines of parts: closed polygons (N, 2) float64, x right and y down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]


def polygon(*corners: tuple[float, float]) -> Points:
    """Return the corners as an outline."""
    return np.array(corners, np.float64)


def join(*outlines: ArrayLike) -> Points:
    """Return the outline that follows several ones in turn."""
    return np.concatenate([np.asarray(outline, np.float64) for outline in outlines])


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> Points:
    """Return a rectangle with rounded corners."""
    r = min(radius, abs(x1 - x0) / 2, abs(y1 - y0) / 2)
    if r <= 0:
        return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    t = np.linspace(0, np.pi / 2, 5)
    arc = np.stack([np.cos(t), np.sin(t)], 1) * r
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    corners = [(x1 - r, y1 - r), (x0 + r, y1 - r), (x0 + r, y0 + r), (x1 - r, y0 + r)]
    pieces = []
    for corner in corners:
        pieces.append(arc + corner)
        arc = arc @ quarter
    return np.concatenate(pieces)


def oval(
    cx: float, cy: float, rx: float, ry: float, angle: float = 0.0, arc: tuple[float, float] = (0.0, 1.0)
) -> Points:
    """Return an ellipse rotated by `angle` radians; `arc` is the section of it (0..1 from the right, clockwise)."""
    t = np.linspace(arc[0], arc[1], 33) * 2 * np.pi
    c, s = np.cos(angle), np.sin(angle)
    x, y = rx * np.cos(t), ry * np.sin(t)
    return np.stack([cx + c * x - s * y, cy + s * x + c * y], 1)


def spline(*corners: tuple[float, float], steps: int = 7, closed: bool = True) -> Points:
    """Return the Catmull-Rom curve through the corners."""
    p = np.array(corners, np.float64)
    if closed:
        a, b, c, d = np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)
    else:
        q = np.concatenate([p[:1], p, p[-1:]])
        a, b, c, d = q[:-3], q[1:-2], q[2:-1], q[3:]
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve = curve.transpose(1, 0, 2).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def stroke(spine: Points, widths: float | Sequence[float]) -> Points:
    """Return a band along an open curve (N, 2); `widths` is its width, one or several from start to end."""
    along = np.gradient(spine, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    side = np.stack([-along[:, 1], along[:, 0]], 1)
    w = np.atleast_1d(np.asarray(widths, np.float64))
    half = np.interp(np.linspace(0, 1, len(spine)), np.linspace(0, 1, len(w)), w)[:, None] / 2
    return np.concatenate([spine + side * half, (spine - side * half)[::-1]])


def rod(x0: float, y0: float, x1: float, y1: float, width: float, end: float | None = None) -> Points:
    """Return a straight band between two points, `width` wide at the first and `end` at the second."""
    return stroke(polygon((x0, y0), (x1, y1)), (width, width if end is None else end))


def leaf(x0: float, y0: float, x1: float, y1: float, width: float) -> Points:
    """Return a leaf or petal from one point to another."""
    spine = np.linspace((x0, y0), (x1, y1), 9)
    return stroke(spine, (0.02 * width, 0.6 * width, width, 0.95 * width, 0.6 * width, 0.02 * width))


def blob(rng: np.random.Generator, cx: float, cy: float, rx: float, ry: float, roughness: float = 0.15) -> Points:
    """Return an ellipse with an irregular edge."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    k = np.arange(2, 7)
    size = rng.normal(0, roughness, len(k)) / np.sqrt(k)
    r = 1 + (size * np.cos(t[:, None] * k + rng.uniform(0, 2 * np.pi, len(k)))).sum(1)
    return np.stack([cx + rx * r * np.cos(t), cy + ry * r * np.sin(t)], 1)
