"""Places: each function paints one kind of place on a view, back to front."""

from __future__ import annotations

from collections.abc import Callable

from ssltransfer.data.world.places.built import city, road, room
from ssltransfer.data.world.places.open_land import coast, desert, field
from ssltransfer.data.world.places.upland import forest, mountain
from ssltransfer.data.world.places.view import View

PLACES: dict[str, Callable[[View], None]] = {
    place.__name__: place for place in (city, coast, desert, field, forest, mountain, road, room)
}
