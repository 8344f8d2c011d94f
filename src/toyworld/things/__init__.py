"""Things made of parts: each function draws the parts of one thing, back to front, in about -1..1 (y down)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from toyworld.brush import Part
from toyworld.things.birds import bird
from toyworld.things.buildings import house
from toyworld.things.household import bottle, clock, lamp, mug, tvmonitor
from toyworld.things.living import fish, flower, pottedplant, tree
from toyworld.things.seats import chair, diningtable, sofa
from toyworld.things.vehicles import aeroplane, boat, bus, car
from toyworld.things.wardrobe import Coat

Maker = Callable[[np.random.Generator, Coat], list[Part]]

THINGS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        aeroplane, bird, boat, bottle, bus, car, chair, clock, diningtable, fish, flower, house, lamp, mug,
        pottedplant, sofa, tree, tvmonitor,
    )
}  # fmt: skip
