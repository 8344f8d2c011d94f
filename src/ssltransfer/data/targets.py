"""Ground truth other than labels: object boxes, a class per pixel, depth in meters, motion masks.

Files are read as published; motion masks come from the motion stage and are packed with the images. `check_target`
verifies a file once, strictly, for the index; `read_target` reads it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.config.formats import TargetKind
from ssltransfer.data.formats import LayoutError, read_mat
from ssltransfer.data.formats.voc import annotated_objects
from ssltransfer.digests import bytes_digest
from ssltransfer.errors import UserError

VOID = 255  # mask value of ignored pixels


class CorruptTargetError(UserError):
    """A target file that cannot be used; the message is a short reason without the path."""


@dataclass(frozen=True)
class Boxes:
    """Objects in an image.

    Attributes:
        corners: float32 (N, 4), x1, y1, x2, y2 in pixels, the first pixel from 0 to 1: a VOC box of 1-based inclusive
            corners (xmin, ymin, xmax, ymax) is (xmin - 1, ymin - 1, xmax, ymax).
        classes: int64 (N,), by the names of the index.
        difficult: bool (N,).
    """

    corners: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray

    def subset(self, mask: np.ndarray) -> Boxes:
        """The objects for which a mask, bool (N,), is true."""
        return Boxes(self.corners[mask], self.classes[mask], self.difficult[mask])


def read_target(index: Index, sample: int) -> Boxes | np.ndarray:
    """The target of a sample.

    Returns:
        boxes: `Boxes`. masks: uint8 (H, W), 0 ground, 1.. the classes in the index's order, 255 void. depth: float32
        (H, W) in meters, 0 for no value. motion: uint8 (H / 8, W / 8), 1 moving foreground.

    Raises:
        ArtifactError: the index has none, or the file can no longer be read.
    """
    targets = index.targets
    if targets is None:
        raise ArtifactError(f"{index.root}: this dataset was indexed without boxes, masks or depth; set its `targets`.")
    if targets.cache is not None:
        row = targets.cache.rows[sample]
        cells = np.frombuffer(targets.cache.read(sample), np.uint8)
        return cells.reshape(int(row["cached_height"]), int(row["cached_width"]))
    path = index.root / targets.paths[sample]
    try:
        return _READERS[targets.kind](path.read_bytes(), path.suffix, index.classes)
    except (CorruptTargetError, OSError) as error:
        raise ArtifactError(
            f"{path}: was readable when the index was made and no longer is ({error}); "
            "restore it or run the index stage again."
        ) from error


def check_target(kind: TargetKind, path: Path, width: int, height: int, classes: Sequence[str]) -> str:
    """Digest of a target file, after verifying that it fits an image of width x height pixels.

    Raises:
        CorruptTargetError: it is missing, damaged or of another size, has boxes outside the image or without extent,
            has no valid pixel, or has depth values that are not finite.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CorruptTargetError(f"{path.name} is missing") from None
    found = _READERS[kind](data, path.suffix, classes)
    if not isinstance(found, Boxes):
        _check_map(kind, found, width, height, len(classes))
        return bytes_digest(data)
    for x1, y1, x2, y2 in found.corners.tolist():
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            raise CorruptTargetError(
                f"box {x1 + 1:g}, {y1 + 1:g}, {x2:g}, {y2:g} (xmin, ymin, xmax, ymax) is not inside the image "
                f"of {width} x {height}"
            )
    return bytes_digest(data)


def _check_map(kind: TargetKind, found: np.ndarray, width: int, height: int, classes: int) -> None:
    if found.shape != (height, width):
        raise CorruptTargetError(
            f"{'mask' if kind == 'masks' else 'depth map'} of {found.shape[1]} x {found.shape[0]} pixels, the image "
            f"has {width} x {height}"
        )
    if kind == "masks":
        wrong = found[(found > classes) & (found != VOID)]
        if wrong.size:
            raise CorruptTargetError(f"mask contains the value {wrong[0]}; expected 0 to {classes}, or {VOID} for void")
        if (found == VOID).all():
            raise CorruptTargetError("mask is void everywhere")
    elif not np.isfinite(found).all() or (found < 0).any():
        raise CorruptTargetError("depth map contains values that are not distances (negative, infinite or NaN)")
    elif not (found > 0).any():
        raise CorruptTargetError("depth map has no value anywhere (all zero)")


def _read_boxes(data: bytes, suffix: str, classes: Sequence[str]) -> Boxes:
    """Objects of a VOC annotation whose class the index contains."""
    number = {name: place for place, name in enumerate(classes)}
    corners, kinds, difficult = [], [], []
    try:
        for name, is_difficult, item in annotated_objects(data):
            if name not in number:
                continue
            box = item.find("bndbox")
            if box is None:
                raise CorruptTargetError(f"the annotation of a {name} has no bndbox")
            # A few corners in VOC2007 are not integers.
            xmin, ymin, xmax, ymax = (float(box.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax"))
            corners.append((xmin - 1, ymin - 1, xmax, ymax))
            kinds.append(number[name])
            difficult.append(is_difficult)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise CorruptTargetError(f"annotation is damaged ({error})") from None
    return Boxes(np.array(corners, np.float32).reshape(-1, 4), np.array(kinds, np.int64), np.array(difficult, bool))


def _read_mask(data: bytes, suffix: str, classes: Sequence[str]) -> np.ndarray:
    """Read an image of class numbers, or SBD's MATLAB file."""
    if suffix == ".mat":
        return _read_sbd(data)
    image = _image(data, "mask")
    if image.mode not in ("P", "L"):
        raise CorruptTargetError(f"mask has mode {image.mode}; expected a palette or gray image of class numbers")
    return np.asarray(image, np.uint8)


def _read_sbd(data: bytes) -> np.ndarray:
    try:
        found = np.asarray(read_mat(data, "mask")["GTcls"]["Segmentation"][()])
    except LayoutError:
        raise CorruptTargetError("mask is damaged (not a readable MATLAB file)") from None
    except (KeyError, IndexError, TypeError, ValueError):
        raise CorruptTargetError("mask has no GTcls.Segmentation, where SBD keeps the class of each pixel") from None
    if found.ndim != 2 or found.dtype.kind not in "uif" or not ((found >= 0) & (found <= VOID)).all():
        raise CorruptTargetError("mask in GTcls.Segmentation is not a matrix of class numbers")
    return found.astype(np.uint8)


def _read_depth(data: bytes, suffix: str, classes: Sequence[str]) -> np.ndarray:
    """Read a 16-bit PNG in millimeters (0 and, as in 7-Scenes, 65535: no value), or a .npy file of float32 meters."""
    if suffix == ".npy":
        try:
            found: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise CorruptTargetError(f"depth map is damaged ({error})") from None
        return found.astype(np.float32)
    image = _image(data, "depth map")
    if not image.mode.startswith("I"):
        raise CorruptTargetError(f"depth map has mode {image.mode}; expected 16 bits in millimeters")
    millimeters = np.asarray(image)
    return np.where(millimeters == 65535, 0, millimeters).astype(np.float32) / 1000


def _image(data: bytes, what: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise CorruptTargetError(f"{what} is damaged ({error})") from None
    return image


_READERS: dict[TargetKind, Any] = {"boxes": _read_boxes, "masks": _read_mask, "depth": _read_depth}
