"""Places: each function paints one kind of place on a view, back to front."""

from __future__ import annotations

from collections.abc import Callable

from toyworld.places.built import city, road, room
from toyworld.places.open_land import coast, desert, field
from toyworld.places.upland import forest, mountain
from toyworld.places.view import View

PLACES: dict[str, Callable[[View], None]] = {
    place.__name__: place for place in (city, coast, desert, field, forest, mountain, road, room)
}
