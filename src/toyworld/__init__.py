"""The embedded world: seeded pictures of made-up things, written in the published layouts.

Everything that the pipeline and its evaluations read can be drawn here, anywhere, without a download. A picture is
a function of (seed, set, split, number) alone: the number of pictures asked for and the number of processes change
neither its pixels nor its bytes, and a larger set begins with the smaller one.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from toyworld.easel import Easel, draw_numbers

SETS: dict[str, str] = {
    "objects": "12 classes of things made of parts, one upright thing a picture; root/<split>/<class>/<number>.jpg",
    "scenes": "8 classes of places under changing weather and light; root/<split>/<class>/<number>.jpg",
    "voc": "1-4 things of 10 VOC classes with boxes and masks; root/VOCdevkit/VOC2007, splits trainval and test",
    "rgbd": "rooms with z-depth in millimetres; root/<split>/{rgb,depth}/<number>.*, listed in root/<split>.txt",
    "clips": "12-frame clips, camera and things moving, with masks of what moves by itself; DAVIS layout, 480p",
    "retrieval": "48 kinds of bird, half of them only in train, half only in test; root/<split>/<class>/<number>.jpg",
}


def draw(set_name: str, root: Path, *, split: str, n: int, size: int = 96, seed: int = 0, workers: int = 1) -> None:
    """Write one split of a set, all of it or nothing.

    Args:
        set_name: a key of `SETS`.
        root: folder of the set; made if missing. Splits of a set lie side by side in it.
        split: name of the split; `voc` knows "trainval" (with halves "train" and "val") and "test", `retrieval`
            "train" and "test", the others any file name.
        n: number of pictures, or of clips.
        size: shorter side in pixels: `objects`, `scenes` and `retrieval` are square, `rgbd` is 4:3, `clips` 16:9,
            `voc` of several shapes.
        seed: seed of all that is drawn.
        workers: processes; started afresh (spawn), so a script that asks for more than 1 needs a main guard.

    A split that is there with the same parameters is left alone.

    Raises:
        ValueError: a wrong argument, a split that was drawn with other parameters, or a folder in its place that
            was not drawn here.
    """
    if set_name not in SETS:
        raise ValueError(f"world: no set is called {set_name!r}; choose one of {', '.join(SETS)}.")
    module = _module(set_name)
    allowed: tuple[str, ...] | None = getattr(module, "SPLITS", None)
    if allowed is not None and split not in allowed:
        raise ValueError(f"world: set {set_name!r} has no split {split!r}; choose one of {', '.join(allowed)}.")
    if not split or split.startswith(".") or "/" in split or "\0" in split:
        raise ValueError(f"world: {split!r} cannot be the name of a split; use a plain file name.")
    for name, value, least in (("n", n, 1), ("size", size, 16), ("seed", seed, 0), ("workers", workers, 1)):
        if value < least:
            raise ValueError(f"world: {name} is {value}, but must be at least {least}.")
    parameters = {"set": set_name, "split": split, "n": n, "size": size, "seed": seed, "version": module.VERSION}
    with Easel(Path(root), split, parameters) as easel:
        if easel.finished:
            return
        draw_numbers(set_name, easel.folder, split, range(n), size, seed, workers)
        if hasattr(module, "lists"):
            module.lists(easel.folder, split, n)
        easel.hang()


def _module(set_name: str) -> ModuleType:
    """Import a set's module: `write(folder, split, number, size, seed)`, VERSION, perhaps `lists` and SPLITS."""
    return import_module(f"toyworld.{set_name}")
