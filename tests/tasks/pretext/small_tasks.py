"""Every task that learns from single images, at sizes that take no time: for networks of 48 pixels."""

from __future__ import annotations

from typing import Any

TILES = {"crop": 60, "tile": 16, "jitter": 3, "channel_shift": 1, "stem_stride": 1}
NINE = {"tiles": {**TILES, "channel_shift": 0}, "resize": 66, "hidden": 64, "embedding": 32, "bn_momentum": 0.1}
PATCHES = {"patch": 20, "gap": 8, "jitter": 3, "pixels": (4096, 5184), "canvas": 60, "grids": 2, "stem_stride": 1}
UNSTEMMED = {"patch": 28, "gap": 8, "jitter": 3, "pixels": (5184, 6400), "canvas": 72, "grids": 2}
HEAD = {"channels": (64, 32), "mid": 32}
TASKS: dict[str, dict[str, Any]] = {
    "jigsaw": {"name": "jigsaw", "permutations": 8, "tiles": TILES, "resize": 60, "hidden": 64},
    "jigsaw++": {"name": "jigsaw++", "permutations": 8, "tiles": TILES, "resize": 60, "hidden": 64},
    "jigsaw-kolesnikov": {"name": "jigsaw-kolesnikov", "permutations": 8, "shown": 4, **NINE},
    "gray patches": {"name": "jigsaw-kolesnikov", "permutations": 8, "shown": 4, "gray_each": True, **NINE},
    "relative-patch-location": {"name": "relative-patch-location", **NINE},
    "exemplar": {"name": "exemplar", "views": 4, "embedding": 32, "least_area": 0.3},
    "exemplar-batch": {"name": "exemplar", "views": 4, "embedding": 32, "least_area": 0.3, "norm_axis": "batch"},
    "drop": {"name": "relative-position", "color": "drop", "hidden": 64, **PATCHES},
    "project": {"name": "relative-position", "color": "project", "hidden": 64, **PATCHES},
    "rotation": {"name": "rotation", "hidden": 64},
    "rotation-inception": {"name": "rotation", "hidden": 64, "augment": "inception"},
    "residual": {"name": "relative-position-residual", "hidden": 64, "head": HEAD, **UNSTEMMED},
    "harmonized": {"name": "relative-position-residual", "harmonized": True, "hidden": 64, "head": HEAD, **UNSTEMMED},
    "colorization": {"name": "colorization", "resize": 48, "hidden": 64},
    "exemplar-patches": {"name": "exemplar-patches", "resize": 64, "patch": 32, "head": HEAD},
    "rotation-crop": {"name": "rotation", "hidden": 64, "augment": "crop"},
}
