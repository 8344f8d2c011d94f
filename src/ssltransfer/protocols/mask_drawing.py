"""Drawings of masks in VOC's colors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from ssltransfer.data.drawing import data_uri, side_by_side
from ssltransfer.data.formats.voc import palette
from ssltransfer.data.targets import VOID

HEIGHT = 120  # pixels, and at most twice as wide: a drawing stays below 40 kB


def colored(mask: np.ndarray) -> np.ndarray:
    """uint8 (H, W) of class numbers -> (H, W, 3): VOC's colors, void white."""
    colors = palette()
    colors[VOID] = 255
    return colors[mask]


def beside(
    path: str, image: np.ndarray, truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str]
) -> dict[str, str]:
    """Image | truth | prediction as {title, uri}.

    Args:
        path: of the image, for the title.
        image: uint8 (H, W, 3).
        truth, predicted: uint8 (H, W).
        classes: names of 1, 2, ...
    """
    named = [", ".join(classes[c - 1] for c in np.unique(mask) if 0 < c < VOID) for mask in (truth, predicted)]
    title = f"{PurePosixPath(path).stem}: {named[0] or 'nothing'}; found: {named[1] or 'nothing'}"
    height = min(HEIGHT, 2 * HEIGHT * image.shape[0] // image.shape[1])
    panels = side_by_side([image, colored(truth), colored(predicted)], max(1, height))
    return {"title": title, "uri": data_uri(panels, "JPEG")}
