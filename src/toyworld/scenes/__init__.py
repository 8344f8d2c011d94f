"""Scenes: each function draws one class of scene, back to front."""

from __future__ import annotations

from collections.abc import Callable

from toyworld.scenes.built import city, road, room
from toyworld.scenes.natural import coast, desert, field, forest, mountain
from toyworld.scenes.scene import Scene

SCENES: dict[str, Callable[[Scene], None]] = {
    draw.__name__: draw for draw in (city, coast, desert, field, forest, mountain, road, room)
}
