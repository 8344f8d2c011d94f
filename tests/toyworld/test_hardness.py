"""No class can be told from a mean colour, and things keep to what they are whatever they wear."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from toyworld import objects, scenes
from toyworld.seeds import stream
from toyworld.things import THINGS
from toyworld.things.wardrobe import Coat


@pytest.mark.parametrize("module", [objects, scenes], ids=["objects", "scenes"])
def test_mean_colour_does_not_tell_the_class(module) -> None:
    count = len(module.CLASSES)
    each = 14
    means = np.array(
        [
            np.asarray(module.picture(name, stream(0, "test", name, i), 24), np.float32).mean((0, 1))
            for i in range(each)
            for name in module.CLASSES
        ]
    )
    labels = np.tile(np.arange(count), each)
    half = len(labels) // 2
    right = NearestCentroid().fit(means[:half], labels[:half]).score(means[half:], labels[half:])
    assert right < 2.5 / count


@pytest.mark.parametrize("name", THINGS)
def test_things_fit_their_frame_and_vary(name: str) -> None:
    extents = []
    for number in range(100):
        rng = stream(0, "thing", name, number)
        points = np.concatenate([part.outline for part in THINGS[name](rng, Coat.random(rng))])
        assert np.isfinite(points).all()
        extents.append(np.concatenate([points.min(0), points.max(0)]))
    assert np.abs(extents).max() < 1.7
    assert np.ptp(np.array(extents)[:, 2:] - np.array(extents)[:, :2], axis=0).max() > 0.1
