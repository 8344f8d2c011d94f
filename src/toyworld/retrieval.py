"""Set `retrieval`: kinds of bird that differ in beak, crest, tail, markings, neck and legs, never in colour."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np

from toyworld.camera import save
from toyworld.objects import portrait
from toyworld.seeds import stream
from toyworld.things.birds import BirdForm, bird_of
from toyworld.things.wardrobe import Coat

VERSION = 1
SPLITS = ("train", "test")
KINDS = 48


@lru_cache(maxsize=1)
def forms() -> tuple[BirdForm, ...]:
    """Return the kinds, the same for every seed: any two differ in at least 3 of their 6 features."""
    every = np.array(list(product(*(range(k) for k in BirdForm.CHOICES))))
    chosen = np.empty((0, every.shape[1]), int)
    for form in np.random.default_rng(2018).permutation(every):
        if len(chosen) < KINDS and ((chosen != form).sum(1) >= 3).all():
            chosen = np.concatenate([chosen, form[None]])
    return tuple(BirdForm(*(int(v) for v in form)) for form in chosen)


def classes(split: str) -> tuple[int, ...]:
    """Return the kinds of a split: every other one."""
    return tuple(range(SPLITS.index(split), KINDS, 2))


def write(folder: Path, split: str, number: int, size: int, seed: int) -> None:
    """Write picture `number` to folder/<split>/bird<kind>/<number>.jpg; kinds take turns."""
    kinds = classes(split)
    kind = kinds[number % len(kinds)]
    rng = stream(seed, "retrieval", split, number)
    parts = bird_of(forms()[kind], rng, Coat.random(rng))
    save(portrait(parts, rng, size), folder / split / f"bird{kind:02d}" / f"{number:05d}.jpg")
