"""Objects: each function draws the parts of one class of object; animals and vehicles face right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from toyworld.layer import Parts
from toyworld.objects.animals import bird, fish
from toyworld.objects.buildings import house
from toyworld.objects.furniture import chair, diningtable, sofa
from toyworld.objects.household import bottle, clock, lamp, mug, tvmonitor
from toyworld.objects.plants import flower, pottedplant, tree
from toyworld.objects.vehicles import aeroplane, boat, bus, car
from toyworld.texture import Theme

OBJECTS: dict[str, Callable[[np.random.Generator, Theme], Parts]] = {
    draw.__name__: draw
    for draw in (
        aeroplane, bird, boat, bottle, bus, car, chair, clock, diningtable, fish, flower, house, lamp, mug,
        pottedplant, sofa, tree, tvmonitor,
    )
}  # fmt: skip
