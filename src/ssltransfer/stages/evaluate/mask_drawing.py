"""Masks in VOC's colours, beside their picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from ssltransfer.data.drawing import data_uri, side_by_side
from ssltransfer.data.layouts.voc import palette
from ssltransfer.data.targets import VOID

HEIGHT = 120  # pixels, and at most twice as wide: a drawing stays below 40 kB


def coloured(mask: np.ndarray) -> np.ndarray:
    """uint8 (H, W) of class numbers -> (H, W, 3): VOC's colours, void white."""
    colours = np.array(palette(), np.uint8).reshape(256, 3)
    colours[VOID] = 255
    return colours[mask]


def beside(
    path: str, picture: np.ndarray, truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str]
) -> dict[str, str]:
    """Picture | truth | prediction as {title, uri}.

    Args:
        path: of the picture; its name stands in the title.
        picture: uint8 (H, W, 3).
        truth, predicted: uint8 (H, W).
        classes: names of 1, 2, ...
    """
    named = [", ".join(classes[c - 1] for c in np.unique(mask) if 0 < c < VOID) for mask in (truth, predicted)]
    title = f"{PurePosixPath(path).stem}: {named[0] or 'nothing'}; found: {named[1] or 'nothing'}"
    height = min(HEIGHT, 2 * HEIGHT * picture.shape[0] // picture.shape[1])
    panels = side_by_side([picture, coloured(truth), coloured(predicted)], max(1, height))
    return {"title": title, "uri": data_uri(panels, "JPEG")}
