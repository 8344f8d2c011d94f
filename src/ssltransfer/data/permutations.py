"""The sets of tile orders that jigsaw puzzles are drawn from (protocols.md 1.1 and 1.2).

A permutation `p` of `cells` tiles maps slots to tiles: slot i shows tile p[i]. In memory
permutations are uint8 (n, cells), counted from 0. The distance of two is Hamming's: the number of slots in
which they differ.
"""

import functools
import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from ssltransfer.config.tasks import Jigsaw, JigsawKolesnikov, JigsawPP
from ssltransfer.errors import UserError


class PermutationError(UserError, ValueError):
    """No set of permutations has the requested properties."""


def permutation_set(options: Jigsaw | JigsawKolesnikov | JigsawPP) -> NDArray[np.uint8]:
    """The set of a task, uint8 (n, 9): from `permutation_file`, or generated. It does not depend on a seed.

    Raises:
        PermutationError: the file has another content, or there is no such set.
    """
    n = options.permutations
    if options.permutation_file:
        return read_permutations(options.permutation_file.checked(), n)
    if not isinstance(options, JigsawPP):
        return max_hamming_set(n)
    if options.target_mean_hamming is None:
        found = min_distance_set(n, min_distance=options.min_distance)
    else:
        found = min_distance_set_of_mean(options.target_mean_hamming, n, min_distance=options.min_distance)
    mean = mean_distance(found)
    # The published range is for hundreds of permutations; the mean of a few varies widely.
    if n >= 100 and not 0.85 <= mean <= 0.9:
        raise PermutationError(f"The mean distance of the set is {mean:.4f} of the cells; it should be in [0.85, 0.9].")
    return found


@functools.lru_cache(maxsize=2)
def _all_permutations(cells: int) -> NDArray[np.uint8]:
    """uint8 (cells!, cells) in lexicographic order, the identity first; read-only."""
    flat = itertools.chain.from_iterable(itertools.permutations(range(cells)))
    out = np.fromiter(flat, dtype=np.uint8).reshape(-1, cells)
    out.flags.writeable = False
    return out


def _tilted_order(tilt: float, seed: int, cells: int) -> NDArray[np.intp]:
    """All rows except the identity, drawn without replacement with weight exp(tilt * fixed points)."""
    candidates = _all_permutations(cells)
    fixed = (candidates == np.arange(cells, dtype=np.uint8)).sum(axis=1)
    u = np.random.default_rng(seed).random(len(candidates))
    # Sorting by log weight + Gumbel noise samples without replacement in proportion to the weights.
    keys = tilt * fixed - np.log(-np.log(np.maximum(u, np.finfo(np.float64).tiny)))
    order = np.argsort(-keys, kind="stable")
    return order[order != 0]


def _scan(order: NDArray[np.intp], n: int, min_distance: int, cells: int) -> NDArray[np.uint8]:
    """The first n permutations of `order` at `min_distance` or more from all chosen before; fewer if it ends."""
    accepted = np.empty((n, cells), dtype=np.uint8)
    count = 0
    for candidate in _all_permutations(cells)[order]:
        if ((accepted[:count] != candidate).sum(axis=1) >= min_distance).all():
            accepted[count] = candidate
            count += 1
            if count == n:
                break
    return accepted[:count]


def min_distance_set(
    n: int = 701, *, min_distance: int = 3, tilt: float = 0.0, seed: int = 0, cells: int = 9
) -> NDArray[np.uint8]:
    """The set of Jigsaw++: random permutations with a minimum pairwise distance, uint8 (n, cells).

    All permutations except the identity are scanned in random order; one is accepted if it differs in at
    least `min_distance` slots from each accepted one. With 2 occluded tiles, permutations that differ in 2
    slots would be indistinguishable, hence 3 (Noroozi et al. 2018, section 4; protocols.md 1.2).

    The order favors permutations with many fixed points by exp(tilt * number), which lowers the mean distance:
    0 gives 8/9 = .889 as in the authors' released file, about 1.0 the .86 of the paper.

    Raises:
        PermutationError: the set cannot be filled.
    """
    perms = _scan(_tilted_order(tilt, seed, cells), n, min_distance, cells)
    if len(perms) < n:
        raise PermutationError(
            f"Only {len(perms)} permutations of {cells} cells were found with distance >= {min_distance} "
            f"between any two, not {n}; lower n or the distance, or use another seed."
        )
    return perms


def min_distance_set_of_mean(mean: float, n: int = 701, *, min_distance: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """The set of Jigsaw++ whose mean distance is `mean` of the 9 cells to within .001; the tilt is found by bisection.

    Raises:
        PermutationError: the set cannot be filled, or no tilt in [0, 4] gives this mean.
    """
    low, high, tilt = 0.0, 4.0, 0.0
    for _ in range(24):
        perms = min_distance_set(n, min_distance=min_distance, tilt=tilt, seed=seed)
        off = mean_distance(perms) - mean
        if abs(off) <= 0.001:
            return perms
        if tilt == 0.0 and off < 0:
            break
        low, high = (tilt, high) if off > 0 else (low, tilt)
        tilt = (low + high) / 2
    raise PermutationError(
        f"No tilt in [0, 4] gives {n} permutations with a mean distance of {mean} of the cells; "
        f"use a value a little below {1 - 1 / 9:.3f}, or a smaller n."
    )


def max_hamming_set(n: int, *, seed: int = 0, cells: int = 9) -> NDArray[np.uint8]:
    """The set of Jigsaw: greedily adds the permutation that is farthest on average from those already chosen.

    The first is uniformly random. Ties are broken at random (protocols.md 1.1 and Noroozi & Favaro 2016,
    algorithm 1). The mean distance of 100 of 9 cells is .898 of the cells, of 1000 .890. Returns uint8 (n, cells).

    Raises:
        PermutationError: n is below 1 or above the number of permutations.
    """
    candidates = _all_permutations(cells)
    if not 1 <= n <= len(candidates):
        raise PermutationError(f"{n} permutations of {cells} cells cannot be chosen; there are {len(candidates)}.")
    rng = np.random.default_rng(seed)
    columns = np.ascontiguousarray(candidates.T)
    agreement = np.zeros(len(candidates), dtype=np.int32)
    taken = np.iinfo(np.int32).max // 2  # above any sum of agreements, without overflow when more are added
    rows = [int(rng.integers(len(candidates)))]
    while len(rows) < n:
        for column, value in zip(columns, candidates[rows[-1]], strict=True):
            agreement += column == value
        agreement[rows[-1]] = taken
        rows.append(int(rng.choice(np.flatnonzero(agreement == agreement.min()))))
    return candidates[rows]


def read_permutations(path: Path, n: int, *, cells: int = 9) -> NDArray[np.uint8]:
    """A set of n permutations from a file, uint8 (n, cells).

    A .npy file has an integer array (n, cells). Any other file is that of the released jigsaw code: int32 numbers, of
    which the first two are n and cells. Both may count from 0 or from 1.

    Raises:
        PermutationError: the file is something else, or has another number of permutations.
    """
    if path.suffix == ".npy":
        try:
            table = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise PermutationError(f"{path}: not an array of NumPy ({error}); name a file of permutations.") from None
    else:
        numbers = np.fromfile(path, dtype="<i4")
        table = numbers[2:].reshape(-1, cells) if len(numbers) % cells == 2 and numbers[1] == cells else numbers
    table = table - table.min(initial=1)
    if table.shape != (n, cells) or not (np.sort(table, axis=1) == np.arange(cells)).all():
        raise PermutationError(f"{path}: expected {n} permutations of {cells} tiles, found an array {table.shape}.")
    if len(np.unique(table, axis=0)) < n:
        raise PermutationError(f"{path}: a permutation occurs twice.")
    return table.astype(np.uint8)


def mean_distance(perms: NDArray[np.uint8]) -> float:
    """Mean distance of all pairs of (n, cells) permutations over the cells: the ".86" of Noroozi et al. 2018."""
    return float(pdist(perms, "hamming").mean())
