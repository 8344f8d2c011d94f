"""Proposals for Fast R-CNN: from files, by OpenCV's selective search, or a regular grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError, atomic_write, file_digest
from ssltransfer.artifacts.index import Index
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.data.transforms import Transform, resize
from ssltransfer.extras import import_extra
from ssltransfer.protocols.detection.proposal_files import read_proposals, stem_of
from ssltransfer.training.devices import Devices
from ssltransfer.training.progress import Progress

GRID_SIDES = (0.2, 0.3, 0.45, 0.67, 1.0)  # relative to a square with the image's area
GRID_ASPECTS = (0.5, 1.0, 2.0)  # height over width
GRID_STEP = 0.25  # of a window's side, at most
SEARCHED_SIDE = 500  # longest side for selective search: VOC's own size, as in fast-rcnn
CHUNK = 64  # images per file of proposals in the work directory


def find_proposals(
    sets: Sequence[tuple[str, Index]], how: str | Sequence[Path], *, folder: Path, devices: Devices
) -> tuple[list[list[np.ndarray]], str]:
    """Proposals for the images of some data sets, clipped to the images.

    Args:
        sets: name and index of each.
        how: grid, selective-search, or paths of files.
        folder: work directory, for results of selective search: an interrupted job resumes.
        devices: of this process; all processes call this function, and each searches a part of the images.

    Returns:
        Per data set and image, float32 (n, 4): x1, y1, x2, y2 in pixels, inside the image; and how they were made, or
        names and digests of files.

    Raises:
        ArtifactError: OpenCV is missing, or a file cannot be read or does not match the sets.
    """
    if how == "grid":
        return [[grid(*size) for size in index.sizes.tolist()] for _, index in sets], "grid"
    if how == "selective-search":
        _opencv()
        searched = [_searched(index, folder / f"proposals-{place}", devices) for place, (_, index) in enumerate(sets)]
        return searched, "selective search (OpenCV, fast)"
    files = [Path(name) for name in how]
    return _of_files(files, sets), ", ".join(f"{file.name} {file_digest(file)[:8]}" for file in files)


def grid(width: int, height: int) -> np.ndarray:
    """Windows of five sizes and three aspects, at most a quarter of their sides apart: float32 (n, 4).

    Each size and aspect touches all four edges of the image. The content of the image is ignored. [chosen: for tests
    and quick trials without files and without OpenCV]
    """
    unit = float(np.sqrt(width * height))
    windows = []
    for side in GRID_SIDES:
        for aspect in GRID_ASPECTS:
            w, h = min(width, unit * side / aspect**0.5), min(height, unit * side * aspect**0.5)
            x, y = (axis.ravel() for axis in np.meshgrid(_starts(width, w), _starts(height, h)))
            windows.append(np.stack([x, y, x + w, y + h], axis=1))
    # float32 may round an edge past the image's.
    return np.unique(np.concatenate(windows), axis=0).astype(np.float32).clip(max=_edges(width, height))


def _starts(room: float, window: float) -> np.ndarray:
    return np.linspace(0, room - window, int(np.ceil((room - window) / (GRID_STEP * window) - 1e-9)) + 1)


def _of_files(files: Sequence[Path], sets: Sequence[tuple[str, Index]]) -> list[list[np.ndarray]]:
    named: dict[str, np.ndarray] = {}
    stems = [[stem_of(path) for path in index.paths] for _, index in sets]
    wanted = {stem for names in stems for stem in names}
    what = " and ".join(name for name, _ in sets)
    for file in files:
        boxes = read_proposals(file)
        if isinstance(boxes, list):
            fitting = [names for names in stems if len(names) == len(boxes)]
            if len(fitting) != 1:
                raise ArtifactError(
                    f"{file}: a list of {len(boxes)} images without names; {what} have "
                    f"{' and '.join(str(len(names)) for names in stems)}, so its set is ambiguous; "
                    "use a file with names."
                )
            boxes = dict(zip(fitting[0], boxes, strict=True))
        if not wanted & boxes.keys():
            raise ArtifactError(f"{file}: contains no proposals for images of {what}; name the files of these sets.")
        if twice := sorted(named.keys() & boxes.keys()):
            raise ArtifactError(f"{file}: {twice[0]} is in another file of proposals too; remove one of the files.")
        named |= boxes
    for (name, _), names in zip(sets, stems, strict=True):
        if missing := [stem for stem in names if stem not in named]:
            raise ArtifactError(
                f"{name}: no proposals for {len(missing)} of its {len(names)} images, such as {missing[0]}, in "
                f"{', '.join(file.name for file in files)}; name the files of both sets."
            )
    return [
        [_inside(named[stem], *size) for stem, size in zip(names, index.sizes.tolist(), strict=True)]
        for names, (_, index) in zip(stems, sets, strict=True)
    ]


def _inside(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Clip to the image and drop empty boxes."""
    cut = boxes.clip(0, _edges(width, height))
    return cut[(cut[:, 2:] > cut[:, :2]).all(1)]


def _edges(width: int, height: int) -> np.ndarray:
    return np.array([width, height] * 2, np.float32)


def _opencv() -> Any:
    cv2 = import_extra("cv2", "opencv", "fast-rcnn: selective search")
    if not hasattr(cv2, "ximgproc"):
        raise ArtifactError(
            "fast-rcnn: selective search needs OpenCV with its contributed modules, which are not installed; install "
            "opencv-contrib-python-headless, name files of proposals, or set `proposals: grid`."
        )
    return cv2, cv2.ximgproc.segmentation


@dataclass(frozen=True)
class _Search(Transform):
    """Selective search in its fast mode (Uijlings et al. 2013) as OpenCV computes it."""

    padding: ClassVar = {}

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """`proposals`, float32 (n, 4), and an image of one pixel."""
        cv2, segmentation = _opencv()
        cv2.setNumThreads(1)
        height, width = image.shape[-2:]
        factor = min(1.0, SEARCHED_SIDE / max(height, width))
        small = resize(image, max(1, round(height * factor)), max(1, round(width * factor)))
        search = segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(np.ascontiguousarray(small.permute(1, 2, 0).numpy()[:, :, ::-1]))
        search.switchToSelectiveSearchFast()
        rects = np.asarray(search.process(), np.float64).reshape(-1, 4)
        # The library returns the boxes in random order.
        corners = np.unique(np.concatenate([rects[:, :2], rects[:, :2] + rects[:, 2:]], axis=1), axis=0)
        corners *= np.array([width / small.shape[-1], height / small.shape[-2]] * 2)
        inside = _inside(corners.astype(np.float32), width, height)
        return {"image": image[:, :1, :1], "proposals": torch.from_numpy(inside)}


def _searched(index: Index, folder: Path, devices: Devices) -> list[np.ndarray]:
    """Proposals of every image; files of an earlier run in the folder are reused."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {start: folder / f"{start}.npz" for start in range(0, len(index), CHUNK)}
    mine = list(files)[devices.rank :: devices.world]
    missing = [start for start in mine if not files[start].is_file()]
    todo = [sample for start in missing for sample in range(start, min(start + CHUNK, len(index)))]
    progress = Progress("proposals", 0, len(todo), 1)
    chunk: list[np.ndarray] = []
    for batch in load_batches(index, _Search(), sequential_keys(todo, 1), seed=0, workers=devices.workers):
        chunk.append(batch.targets["proposals"][0].numpy())
        sample = int(batch.ids[0])
        if len(chunk) == CHUNK or sample == len(index) - 1:
            with atomic_write(files[sample // CHUNK * CHUNK]) as beside, beside.open("wb") as out:
                np.savez(out, *chunk)
            chunk = []
        progress.step()
        progress.log("selective search")
    progress.close()
    devices.barrier()
    proposals = []
    for file in files.values():
        with np.load(file, allow_pickle=False) as content:
            proposals += [content[f"arr_{place}"] for place in range(len(content.files))]
    return proposals
