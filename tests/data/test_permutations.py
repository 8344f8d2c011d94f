import numpy as np
import pytest
from scipy.spatial.distance import pdist

from ssltransfer.data import permutations as perm


@pytest.fixture(scope="module")
def default() -> np.ndarray:
    return perm.min_distance_set()


def plain_distances(perms: np.ndarray) -> np.ndarray:
    return np.rint(pdist(perms, "hamming") * perms.shape[1]).astype(int)


def test_jigsawpp_set_resembles_released_701(default):
    found = perm.accept(default)
    assert default.dtype == np.uint8 and default.shape == (701, 9)
    assert found["n"] == 701 and found["min"] == 3
    # The released file: mean 7.999 slots of 9, and these counts for d = 3..9.
    assert found["mean"] == pytest.approx(7.999, abs=0.02)
    released = dict(zip(range(3, 10), [152, 927, 3569, 14513, 44497, 93251, 88441], strict=True))
    assert sum(found["histogram"].values()) == sum(released.values()) == 701 * 700 // 2
    for d in (6, 7, 8, 9):
        assert found["histogram"][d] == pytest.approx(released[d], rel=0.07)
    assert not (default == np.arange(9)).all(axis=1).any()


def test_statistics_match_scipy(default):
    distances = plain_distances(default[:120])
    found = perm.statistics(default[:120])
    assert found["min"] == distances.min() and found["mean"] == pytest.approx(distances.mean())
    assert found["mean_fraction"] == pytest.approx(distances.mean() / 9)
    assert found["histogram"] == {int(d): int((distances == d).sum()) for d in np.unique(distances)}


def test_scan_matches_plain_loop():
    order = perm._tilted_order(0.5, 4, 6)
    kept: list[np.ndarray] = []
    for candidate in perm._all_permutations(6)[order]:
        if all((candidate != k).sum() >= 4 for k in kept):
            kept.append(candidate)
    assert len(kept) > 30
    assert np.array_equal(perm.min_distance_set(len(kept), min_distance=4, tilt=0.5, seed=4, cells=6), kept)
    with pytest.raises(ValueError, match=f"Only {len(kept)} permutations"):
        perm.min_distance_set(len(kept) + 1, min_distance=4, tilt=0.5, seed=4, cells=6)


def test_jigsawpp_set_depends_on_seed(default):
    assert np.array_equal(perm.min_distance_set(seed=0), default)
    assert not np.array_equal(perm.min_distance_set(seed=1), default)


@pytest.mark.parametrize("seed", [0, 1])
def test_jigsawpp_set_tilt_reaches_mean_of_paper(seed: int):
    for tilt, mean in [(0.0, 0.889), (0.95, 0.862), (1.0, 0.858)]:
        found = perm.accept(perm.min_distance_set(tilt=tilt, seed=seed))
        assert found["mean_fraction"] == pytest.approx(mean, abs=0.006)  # sd over seeds .0019
    aimed = perm.accept(perm.min_distance_set(mean_target=0.86, seed=seed))
    assert aimed["mean_fraction"] == pytest.approx(0.86, abs=0.001)


def test_jigsawpp_set_refuses_unreachable_mean():
    with pytest.raises(ValueError, match="No tilt"):
        perm.min_distance_set(100, mean_target=0.95)


def test_max_hamming_set_is_greedy():
    chosen = perm.max_hamming_set(25, seed=3, cells=5)
    everything = perm._all_permutations(5)
    for step in range(1, 25):
        sums = (everything[:, None] != chosen[None, :step]).sum(axis=(1, 2))
        left = ~(everything[:, None] == chosen[None, :step]).all(axis=2).any(axis=1)
        assert (chosen[step] != chosen[:step]).sum() == sums[left].max()
    assert len(np.unique(chosen, axis=0)) == 25


def test_max_hamming_set_of_100_has_known_mean():
    found = perm.statistics(perm.max_hamming_set(100))
    assert found["mean_fraction"] == pytest.approx(0.898, abs=0.001)
    assert found["min"] >= 2


def test_max_hamming_set_is_limited_to_all_permutations():
    assert len(np.unique(perm.max_hamming_set(24, cells=4), axis=0)) == 24
    with pytest.raises(ValueError, match="there are 24"):
        perm.max_hamming_set(25, cells=4)


def test_accept_names_the_fault(default):
    with pytest.raises(ValueError, match="expected 701"):
        perm.accept(default[:700])
    broken = default.copy()
    broken[5, 0] = broken[5, 1]
    with pytest.raises(ValueError, match="Row 5"):
        perm.accept(broken)
    twice = default.copy()
    twice[9] = twice[2]
    with pytest.raises(ValueError, match="duplicate"):
        perm.accept(twice)
    close = default.copy()
    close[9] = close[2][[1, 0, *range(2, 9)]]
    with pytest.raises(ValueError, match="differ in only 2 slots"):
        perm.accept(close)
    with pytest.raises(ValueError, match="mean distance"):
        perm.accept(perm.min_distance_set(tilt=3.0))
