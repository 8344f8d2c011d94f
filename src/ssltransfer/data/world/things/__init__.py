"""Things made of parts: each function draws the parts of one thing, back to front, in about -1..1 (y down)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ssltransfer.data.world.brush import Part
from ssltransfer.data.world.things.birds import bird
from ssltransfer.data.world.things.buildings import house
from ssltransfer.data.world.things.household import bottle, clock, lamp, mug, tvmonitor
from ssltransfer.data.world.things.living import fish, flower, pottedplant, tree
from ssltransfer.data.world.things.seats import chair, diningtable, sofa
from ssltransfer.data.world.things.vehicles import aeroplane, boat, bus, car
from ssltransfer.data.world.things.wardrobe import Coat

Maker = Callable[[np.random.Generator, Coat], list[Part]]

THINGS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        aeroplane, bird, boat, bottle, bus, car, chair, clock, diningtable, fish, flower, house, lamp, mug,
        pottedplant, sofa, tree, tvmonitor,
    )
}  # fmt: skip
