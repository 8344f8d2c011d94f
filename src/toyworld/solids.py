"""Solids in metres and the rays that meet them: boxes turned about the vertical, balls, and the room around."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toyworld.texture import Array, Paint


@dataclass(frozen=True)
class Box:
    """A box: centre and half sides (x right, y down, z away), turned by `yaw` about the vertical; `inside` = a room.

    One paint for all faces, or six: -x, +x, -y, +y, -z, +z.
    """

    centre: Array
    half: Array
    yaw: float
    paints: tuple[Paint, ...]
    inside: bool = False

    def turn(self) -> Array:
        """Return the matrix (3, 3) from the world's axes to the box's."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]], np.float32)

    def meet(self, origin: Array, rays: Array) -> Array:
        """Return where (in lengths of the rays) rays (3, ...) from origin (3, ...) meet the surface; inf: nowhere."""
        c, s = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw))
        x, y, z = (origin[i] - self.centre[i] for i in range(3))
        starts = (c * x - s * z, y, s * x + c * z)
        along = (c * rays[0] - s * rays[2], rays[1], s * rays[0] + c * rays[2])
        near, far = np.full(rays[0].shape, -np.inf, np.float32), np.full(rays[0].shape, np.inf, np.float32)
        for axis in range(3):
            with np.errstate(divide="ignore", invalid="ignore"):
                pace = 1 / along[axis]
            pace = np.clip(pace, np.float32(-1e7), np.float32(1e7))
            middle, reach = -starts[axis] * pace, self.half[axis] * np.abs(pace)
            near, far = np.maximum(near, middle - reach), np.minimum(far, middle + reach)
        if self.inside:
            return far
        return np.where((near < far) & (near > 1e-3), near, np.float32(np.inf))

    def surface(self, points: Array) -> tuple[Array, Array]:
        """Return unit normals (N, 3) and colours (N, 3) at points (N, 3) of the surface."""
        turn = self.turn()
        local = (points - self.centre) @ turn.T
        axis = np.argmax(np.abs(local) / self.half, 1)
        rows = np.arange(len(local))
        sign = np.sign(local[rows, axis])
        normal = np.zeros_like(local)
        normal[rows, axis] = -sign if self.inside else sign
        face = 2 * axis + (sign > 0)
        colours = np.empty_like(local)
        for k in np.unique(face):
            chosen = face == k
            u, v = (local[chosen, a] for a in ((2, 1), (0, 2), (0, 1))[k // 2])
            colours[chosen] = self.paints[k % len(self.paints)].at(u, v)
        return normal @ turn, colours

    def corners(self) -> Array:
        """Return the 8 corners (8, 3)."""
        signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(8, 3)
        return (signs * self.half).astype(np.float32) @ self.turn() + self.centre


@dataclass(frozen=True)
class Ball:
    """A ball: centre (x right, y down, z away) and radius."""

    centre: Array
    radius: float
    paint: Paint

    def meet(self, origin: Array, rays: Array) -> Array:
        """Return where (in lengths of the rays) rays (3, ...) from origin (3, ...) meet the surface; inf: nowhere."""
        x, y, z = (origin[i] - self.centre[i] for i in range(3))
        a = rays[0] * rays[0] + rays[1] * rays[1] + rays[2] * rays[2]
        b = x * rays[0] + y * rays[1] + z * rays[2]
        root = b * b - a * (x * x + y * y + z * z - np.float32(self.radius**2))
        near = (-b - np.sqrt(np.maximum(root, 0))) / a
        return np.where((root > 0) & (near > 1e-3), near, np.float32(np.inf)).astype(np.float32)

    def surface(self, points: Array) -> tuple[Array, Array]:
        """Return unit normals (N, 3) and colours (N, 3) at points (N, 3) of the surface."""
        normal = (points - self.centre) / np.float32(self.radius)
        around = np.arctan2(normal[:, 2], normal[:, 0]) * np.float32(self.radius)
        return normal, self.paint.at(around, normal[:, 1] * np.float32(1.5 * self.radius))

    def corners(self) -> Array:
        """Return 8 points (8, 3) whose hull holds the ball."""
        signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(8, 3)
        return (signs * self.radius).astype(np.float32) + self.centre


Solid = Box | Ball
