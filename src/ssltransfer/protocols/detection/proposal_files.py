"""Readers of proposals: .mat as published with Fast R-CNN, .pkl as written by py-faster-rcnn."""

import importlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.data.image_io import EXTENSIONS


def read_proposals(path: Path) -> dict[str, np.ndarray] | list[np.ndarray]:
    """Boxes by the image's name without folder and extension, or a list in the file's order if it has no names.

    A .mat file holds `boxes`, a cell per image of (n, 4) rows y1, x1, y2, x2, 1-based with inclusive corners, and
    `images`, their names (fast-rcnn's voc_2007_trainval.mat). A .pkl file holds a list of (n, 4) arrays x1, y1, x2, y2,
    0-based with inclusive corners; further columns (scores) are ignored. Or it holds a dictionary of such arrays by
    name, or a dictionary with such a list as `boxes` and the names as `images`.

    Returns:
        float32 (n, 4) each: x1, y1, x2, y2; the first pixel spans 0 to 1.

    Raises:
        ArtifactError: the file is missing, damaged, of another format, or a pickle of anything but arrays.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: proposals cannot be read ({error.strerror}); check `proposals`.") from None
    readers: dict[str, Callable[[bytes], Any]] = {".mat": _mat, ".pkl": _pickle}
    if path.suffix not in readers:
        raise ArtifactError(f"{path}: proposals are read from .mat and .pkl files; name one of these.")
    try:
        boxes: dict[str, np.ndarray] | list[np.ndarray] = readers[path.suffix](data)
    except MemoryError:
        raise
    except Exception as error:  # scipy and pickle raise arbitrary exceptions on damaged bytes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ArtifactError(f"{path}: not a readable file of proposals ({reason}); restore it.") from None
    return boxes


def _mat(data: bytes) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    content = loadmat(io.BytesIO(data))
    cells, names = content["boxes"].ravel(), content["images"].ravel()
    # scipy reads cells of text as arrays of one element.
    texts = [str(np.asarray(name).ravel()[0]) for name in names]
    return _named(texts, [np.subtract(_corners(cell)[:, (1, 0, 3, 2)], (1, 1, 0, 0)) for cell in cells])


def _pickle(data: bytes) -> dict[str, np.ndarray] | list[np.ndarray]:
    # latin1: for arrays written by Python 2, as by py-faster-rcnn.
    content = _Arrays(io.BytesIO(data), encoding="latin1").load()
    if isinstance(content, dict):
        names: Any = content.keys()
        boxes: Any = content.values()
        if "boxes" in content:
            names, boxes = content.get("images"), content["boxes"]
        if names is None:
            raise ValueError("boxes without names; give these as 'images'")
        return _named([str(name) for name in names], [_exclusive(rows) for rows in boxes])
    if not isinstance(content, list):
        raise ValueError(f"expected a list or a dictionary of arrays, not {type(content).__name__}")
    return [_exclusive(rows).astype(np.float32) for rows in content]


def _exclusive(rows: Any) -> np.ndarray:
    return np.add(_corners(rows), (0, 0, 1, 1))


def _corners(rows: Any) -> np.ndarray:
    """float64 (n, 4), of four columns or more."""
    corners = np.asarray(rows, np.float64)
    if not corners.size:
        return np.zeros((0, 4))
    if corners.ndim != 2 or corners.shape[1] < 4 or not np.isfinite(corners).all():
        raise ValueError(f"boxes of shape {corners.shape}; expected finite rows of four coordinates")
    return corners[:, :4]


def _named(names: list[str], boxes: list[np.ndarray]) -> dict[str, np.ndarray]:
    if len(names) != len(boxes):
        raise ValueError(f"{len(names)} names of images, but boxes of {len(boxes)}")
    stems = [stem_of(name) for name in names]
    if len(set(stems)) < len(stems):
        raise ValueError(f"{next(stem for stem in stems if stems.count(stem) > 1)} occurs more than once")
    return {stem: one.astype(np.float32) for stem, one in zip(stems, boxes, strict=True)}


def stem_of(name: str) -> str:
    """The name of an image without folder and extension."""
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in EXTENSIONS else path.name


class _Arrays(pickle.Unpickler):
    """Unpickles lists, dictionaries, numbers, text and numpy arrays; everything else is refused."""

    _ALLOWED = {
        *{(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")},
        *{(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")},
        *{("numpy", name) for name in ("ndarray", "dtype")},
        ("collections", "OrderedDict"),
    }

    def find_class(self, module: str, name: str) -> Any:
        """Allowed globals of a pickle."""
        if (module, name) == ("_codecs", "encode"):
            return _bytes  # how protocol 2 writes bytes
        if (module, name) in {("builtins", "bytes"), ("__builtin__", "bytes")}:
            return _no_bytes  # and empty ones
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not allowed in a file of boxes")
        # numpy 2 moved `core`; its aliases for older pickles warn.
        return getattr(importlib.import_module(module.replace("numpy.core", "numpy._core")), name)


def _no_bytes() -> bytes:
    return b""


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes as {encoding}")
    return text.encode("latin1")
