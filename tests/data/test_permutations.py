from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.base import InputFile
from ssltransfer.config.tasks import Jigsaw, JigsawKolesnikov, JigsawPP
from ssltransfer.data import permutations as perm
from ssltransfer.tasks.pretext.jigsaw import JigsawTask
from ssltransfer.tasks.pretext.jigsaw_kolesnikov import JigsawKolesnikovTask
from ssltransfer.tasks.pretext.jigsawpp import JigsawPPTask


@pytest.fixture(scope="module")
def default() -> np.ndarray:
    return perm.min_distance_set()


def plain_distances(perms: np.ndarray) -> np.ndarray:
    return np.rint(pdist(perms, "hamming") * perms.shape[1]).astype(int)


def test_jigsawpp_set_resembles_released_701(default):
    assert default.dtype == np.uint8 and default.shape == (701, 9)
    assert (np.sort(default, axis=1) == np.arange(9)).all()
    found = plain_distances(default)
    assert found.min() == 3
    # The released file: mean 7.999 slots of 9, and these counts for d = 3..9.
    assert found.mean() == pytest.approx(7.999, abs=0.02)
    released = np.array([0, 0, 0, 152, 927, 3569, 14513, 44497, 93251, 88441])
    assert len(found) == released.sum() == 701 * 700 // 2
    np.testing.assert_allclose(np.bincount(found)[6:], released[6:], rtol=0.07)
    assert not (default == np.arange(9)).all(axis=1).any()


def test_mean_distance_of_three_permutations():
    """Two slots differ between the first and the second, three between first and third, four between the others."""
    perms = np.array([[0, 1, 2, 3], [1, 0, 2, 3], [3, 1, 0, 2]], np.uint8)
    assert perm.mean_distance(perms) == pytest.approx((2 + 3 + 4) / 3 / 4)


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


def test_scan_skips_permutations_that_are_too_close():
    """In lexicographic order: 021 and 102 agree with 012 in one slot, 120 and 201 in none, 210 agrees with each."""
    assert perm._scan(np.arange(6), 6, 3, 3).tolist() == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]


def test_jigsawpp_set_depends_on_seed(default):
    assert np.array_equal(perm.min_distance_set(seed=0), default)
    assert not np.array_equal(perm.min_distance_set(seed=1), default)


@pytest.mark.parametrize("seed", [0, 1])
def test_jigsawpp_set_tilt_reaches_mean_of_paper(seed: int):
    for tilt, mean in [(0.0, 0.889), (0.95, 0.862), (1.0, 0.858)]:
        found = perm.min_distance_set(tilt=tilt, seed=seed)
        assert perm.mean_distance(found) == pytest.approx(mean, abs=0.006)  # sd over seeds .0019
    aimed = perm.min_distance_set_of_mean(0.86, seed=seed)
    assert plain_distances(aimed).min() >= 3
    assert perm.mean_distance(aimed) == pytest.approx(0.86, abs=0.001)


def test_jigsawpp_set_refuses_unreachable_mean():
    with pytest.raises(ValueError, match="No tilt"):
        perm.min_distance_set_of_mean(0.95, 100)


def test_max_hamming_set_adds_the_farthest_permutation():
    """Three cells: the rotations of 012 differ from each other in all slots, and from each reflection in two."""
    chosen = perm.max_hamming_set(6, seed=0, cells=3).tolist()
    rotations, reflections = [[0, 1, 2], [1, 2, 0], [2, 0, 1]], [[0, 2, 1], [1, 0, 2], [2, 1, 0]]
    first, second = sorted(chosen[:3]), sorted(chosen[3:])
    assert [first, second] in ([rotations, reflections], [reflections, rotations])


def test_max_hamming_set_is_greedy():
    chosen = perm.max_hamming_set(25, seed=3, cells=5)
    everything = perm._all_permutations(5)
    for step in range(1, 25):
        sums = (everything[:, None] != chosen[None, :step]).sum(axis=(1, 2))
        left = ~(everything[:, None] == chosen[None, :step]).all(axis=2).any(axis=1)
        assert (chosen[step] != chosen[:step]).sum() == sums[left].max()
    assert len(np.unique(chosen, axis=0)) == 25


def test_max_hamming_set_of_100_has_known_mean():
    found = perm.max_hamming_set(100)
    assert perm.mean_distance(found) == pytest.approx(0.898, abs=0.001)
    assert plain_distances(found).min() >= 2


def test_max_hamming_set_is_limited_to_all_permutations():
    assert len(np.unique(perm.max_hamming_set(24, cells=4), axis=0)) == 24
    with pytest.raises(ValueError, match="there are 24"):
        perm.max_hamming_set(25, cells=4)


def test_read_permutations_of_released_file_and_npy(tmp_path: Path):
    chosen = perm.min_distance_set(5, seed=3)
    np.concatenate([[5, 9], chosen.ravel() + 1]).astype("<i4").tofile(tmp_path / "set.bin")
    np.save(tmp_path / "set.npy", chosen)
    for name in ("set.bin", "set.npy"):
        found = perm.read_permutations(tmp_path / name, 5)
        assert found.dtype == np.uint8 and (found == chosen).all()
        with pytest.raises(ValueError, match="expected 4 permutations"):
            perm.read_permutations(tmp_path / name, 4)
    np.save(tmp_path / "twice.npy", chosen[[0, 0]])
    with pytest.raises(ValueError, match="occurs twice"):
        perm.read_permutations(tmp_path / "twice.npy", 2)
    np.save(tmp_path / "other.npy", np.zeros((5, 9), int))
    with pytest.raises(ValueError, match="expected 5 permutations"):
        perm.read_permutations(tmp_path / "other.npy", 5)


@pytest.mark.parametrize(
    ("options", "task"), [(Jigsaw, JigsawTask), (JigsawPP, JigsawPPTask), (JigsawKolesnikov, JigsawKolesnikovTask)]
)
def test_jigsaw_tasks_read_permutation_file(tmp_path: Path, options, task):
    chosen = perm.min_distance_set(8, seed=3)
    np.save(tmp_path / "set.npy", chosen)
    file = InputFile.model_validate(str(tmp_path / "set.npy"))
    built = task(options(permutations=8, permutation_file=file), CaffeNet(width_mult=0.1), 0)
    assert file.digest and (built.permutations.numpy() == chosen).all()
