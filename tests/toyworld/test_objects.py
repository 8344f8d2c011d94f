"""The drawing functions of object classes."""

from __future__ import annotations

import numpy as np
import pytest

from toyworld.objects import OBJECTS
from toyworld.split_writer import make_rng
from toyworld.texture import Theme


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_fit_their_frame_and_vary(name: str) -> None:
    extents = []
    for number in range(100):
        rng = make_rng(0, "thing", name, number)
        points = np.concatenate([part.outline for part in OBJECTS[name](rng, Theme.random(rng))])
        assert np.isfinite(points).all()
        extents.append(np.concatenate([points.min(0), points.max(0)]))
    assert np.abs(extents).max() < 1.7
    assert np.ptp(np.array(extents)[:, 2:] - np.array(extents)[:, :2], axis=0).max() > 0.1
