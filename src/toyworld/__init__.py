"""Synthetic data sets in published layouts: seeded images of objects and scenes with labels, for demos and tests.

An image is a function of (seed, subset, split, number) alone. Neither the number of images nor the number of processes
changes its pixels or bytes, and a larger set begins with the smaller one.
"""

from __future__ import annotations

from pathlib import Path

from toyworld.split_writer import Parameters, split_writer, write_numbers
from toyworld.subsets import SUBSETS

__all__ = ["SUBSETS", "generate"]


def generate(
    subset: str, root: Path, *, split: str, num_images: int, size: int = 96, seed: int = 0, workers: int = 1
) -> None:
    """Write one split of a subset, completely or not at all. A split that exists with the same parameters is kept.

    Args:
        subset: a key of `SUBSETS`.
        root: folder of the subset with all its splits; created if missing.
        split: "trainval" or "test" for `voc` ("trainval" has the halves "train" and "val"), "train" or "test" for
            `retrieval`, any file name for the others.
        num_images: number of images; for `clips`, number of clips.
        size: shorter side in pixels: `objects`, `scenes` and `retrieval` are square, `rgbd` is 4:3, `clips` 16:9,
            `voc` varies.
        seed: seed of the random generators.
        workers: processes; they are spawned, so a script that asks for more than 1 needs a main guard.

    Raises:
        ValueError: invalid argument, a split with other parameters, or existing files that this function did not write.
    """
    if subset not in SUBSETS:
        raise ValueError(f"toyworld: unknown subset {subset!r}; choose one of {', '.join(SUBSETS)}.")
    entry = SUBSETS[subset]
    if entry.splits and split not in entry.splits:
        choices = ", ".join(entry.splits)
        raise ValueError(f"toyworld: subset {subset!r} has no split {split!r}; choose one of {choices}.")
    if not split or split.startswith(".") or "/" in split or "\0" in split:
        raise ValueError(f"toyworld: {split!r} cannot be the name of a split; use a plain file name.")
    limits = {"num_images": (num_images, 1), "size": (size, 16), "seed": (seed, 0), "workers": (workers, 1)}
    for name, (value, minimum) in limits.items():
        if value < minimum:
            raise ValueError(f"toyworld: {name} is {value}, but must be at least {minimum}.")
    parameters: Parameters = {"subset": subset, "split": split, "num_images": num_images, "size": size, "seed": seed}
    with split_writer(Path(root), split, parameters | {"version": entry.version}) as folder:
        if folder is not None:
            write_numbers(subset, folder, split, range(num_images), size, seed, workers)
            if entry.write_lists:
                entry.write_lists(folder, split, num_images)
