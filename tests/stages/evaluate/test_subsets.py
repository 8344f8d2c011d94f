import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssltransfer.stages.evaluate.subsets import stratified


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.99), st.integers(0, 9))
def test_every_class_gives_its_share_and_keeps_one(classes: list[int], share: float, seed: int) -> None:
    labels = np.array(classes)
    chosen = stratified(labels, share, seed, keep=1)
    assert (np.diff(chosen) > 0).all()
    for label in np.unique(labels):
        there, taken = (labels == label).sum(), (labels[chosen] == label).sum()
        assert taken == min(max(1, round(share * there)), there - 1)


def test_a_seed_is_a_draw(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 5, 300)
    first = stratified(labels, 0.2, 0)
    assert (first == stratified(labels, 0.2, 0)).all()
    assert (first != stratified(labels, 0.2, 1)).any()
    assert len(first) == pytest.approx(60, abs=3)
