"""Solids in meters and their intersections with rays: boxes rotated about the vertical axis, balls, and the room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toyworld.texture import Array, Texture

_CORNERS = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(8, 3)


@dataclass(frozen=True)
class Box:
    """A box: center and half sides (x right, y down, z forward), rotated by `yaw` about the vertical axis.

    It has one texture for all faces or six: -x, +x, -y, +y, -z, +z. If `inside`, it is a room, seen from within.
    """

    center: Array
    half: Array
    yaw: float
    textures: tuple[Texture, ...]
    inside: bool = False

    @property
    def rotation(self) -> Array:
        """Matrix (3, 3) from the room's axes to the box's."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]], np.float32)

    def intersect(self, origin: Array, rays: Array) -> Array:
        """Return the distance to the surface, in lengths of the rays (3, ...) from origin (3, ...); inf: no hit."""
        c, s = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw))
        x, y, z = (origin[i] - self.center[i] for i in range(3))
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
        """Return unit normals (N, 3) and colors (N, 3) at points (N, 3) of the surface."""
        local = (points - self.center) @ self.rotation.T
        axis = np.argmax(np.abs(local) / self.half, 1)
        rows = np.arange(len(local))
        sign = np.sign(local[rows, axis])
        normal = np.zeros_like(local)
        normal[rows, axis] = -sign if self.inside else sign
        face = 2 * axis + (sign > 0)
        colors = np.empty_like(local)
        for k in np.unique(face):
            chosen = face == k
            u, v = (local[chosen, a] for a in ((2, 1), (0, 2), (0, 1))[k // 2])
            colors[chosen] = self.textures[k % len(self.textures)].at(u, v)
        return normal @ self.rotation, colors

    def corners(self) -> Array:
        """Return the 8 corners (8, 3)."""
        return (_CORNERS * self.half).astype(np.float32) @ self.rotation + self.center


@dataclass(frozen=True)
class Ball:
    """A ball: center (x right, y down, z forward) and radius."""

    center: Array
    radius: float
    texture: Texture

    def intersect(self, origin: Array, rays: Array) -> Array:
        """Return the distance to the surface, in lengths of the rays (3, ...) from origin (3, ...); inf: no hit."""
        x, y, z = (origin[i] - self.center[i] for i in range(3))
        a = rays[0] * rays[0] + rays[1] * rays[1] + rays[2] * rays[2]
        b = x * rays[0] + y * rays[1] + z * rays[2]
        root = b * b - a * (x * x + y * y + z * z - np.float32(self.radius**2))
        near = (-b - np.sqrt(np.maximum(root, 0))) / a
        return np.where((root > 0) & (near > 1e-3), near, np.float32(np.inf)).astype(np.float32)

    def surface(self, points: Array) -> tuple[Array, Array]:
        """Return unit normals (N, 3) and colors (N, 3) at points (N, 3) of the surface."""
        normal = (points - self.center) / np.float32(self.radius)
        around = np.arctan2(normal[:, 2], normal[:, 0]) * np.float32(self.radius)
        return normal, self.texture.at(around, normal[:, 1] * np.float32(1.5 * self.radius))

    def corners(self) -> Array:
        """Return the 8 corners (8, 3) of the enclosing cube."""
        return (_CORNERS * self.radius).astype(np.float32) + self.center


Solid = Box | Ball
