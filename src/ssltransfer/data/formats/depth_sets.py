"""Images with depth: NYU Depth v2, the frames of Ma & Karaman, and lists of images and depth maps."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssltransfer.artifacts.files import atomic_folder
from ssltransfer.config.formats import FastDepth, NyuDepthV2, Rgbd
from ssltransfer.data.formats import FORMATS, DatasetListing, LayoutError, folder_of, read_list, read_mat
from ssltransfer.data.formats.download import download_lock
from ssltransfer.data.formats.folders import find_images
from ssltransfer.extras import import_extra
from ssltransfer.logs import logger

Frame = tuple[str, np.ndarray, np.ndarray]  # name, uint8 (H, W, 3), float32 (H, W) in meters


@FORMATS.register(NyuDepthV2, FastDepth, Rgbd)
def find(dataset: NyuDepthV2 | FastDepth | Rgbd, *, workers: int = 1) -> DatasetListing:
    """Images of a split and their depth maps.

    NYU's and Ma & Karaman's are HDF5 files. The first call converts them to
    root/<format>-png/<split>/rgb/<name>.png and depth/<name>.npy, float32 meters.
    """
    root = Path(dataset.root)
    if isinstance(dataset, Rgbd):
        return _listed(root, dataset)
    folder_of(root)
    folder = root / f"{dataset.format}-png" / dataset.split
    if not folder.is_dir():
        with download_lock(root, dataset.format):
            if not folder.is_dir():
                _write(folder, _nyu(root, dataset.split) if isinstance(dataset, NyuDepthV2) else _fast(root, dataset))
    names = [path.removesuffix(".png") for path in find_images(folder / "rgb").paths]
    targets = [f"depth/{name}.npy" for name in names] if dataset.targets else None
    return DatasetListing(folder, [f"rgb/{name}.png" for name in names], targets=targets)


def _listed(root: Path, dataset: Rgbd) -> DatasetListing:
    file = root / f"{dataset.split}.txt"
    try:
        lines = read_list(file).splitlines()
    except FileNotFoundError:
        there = ", ".join(sorted(path.stem for path in root.glob("*.txt"))) or "no lists"
        raise LayoutError(f"{file}: missing; available: {there}.") from None
    except OSError as error:
        raise LayoutError(f"{file}: not a list of images and depth maps ({error}); restore it.") from None
    pairs = []
    for number, line in enumerate(lines, 1):
        fields = line.strip().split("\t" if "\t" in line else None)
        if fields and not line.startswith("#"):
            if len(fields) != 2:
                raise LayoutError(f"{file}: line {number} is not an image and a depth map; fix this line.")
            pairs.append(fields)
    targets = [path for _, path in pairs] if dataset.targets else None
    return DatasetListing(root, [path for path, _ in pairs], targets=targets)


def _nyu(root: Path, split: str) -> Iterator[Frame]:
    """Frames of nyu_depth_v2_labeled.mat that splits.mat assigns to this split, named by their number in the file."""
    file, lists = root / "nyu_depth_v2_labeled.mat", root / "splits.mat"
    for path in (file, lists):
        if not path.is_file():
            raise LayoutError(f"{path}: missing; `root` must hold nyu_depth_v2_labeled.mat and splits.mat.")
    numbers = read_mat(lists.read_bytes(), str(lists)).get(f"{split}Ndxs")
    if numbers is None:
        raise LayoutError(f"{lists}: has no {split}Ndxs; remove it and download it again.")
    with _arrays(file, "images", "depths") as (images, depths):
        for number in np.atleast_1d(numbers).astype(int).tolist():
            if not 1 <= number <= len(images):
                raise LayoutError(f"{lists}: lists frame {number} of {len(images)}; download it and {file.name} again.")
            # MATLAB is column-major: (3, W, H) and (W, H).
            yield f"{number:05d}", images[number - 1].transpose(2, 1, 0), depths[number - 1].T


def _fast(root: Path, dataset: FastDepth) -> Iterator[Frame]:
    """Frames of the .h5 files below the split's folder, named by their paths in it."""
    folder = root / dataset.split
    files = sorted(folder.rglob("*.h5"))
    if not files:
        raise LayoutError(f"{folder}: contains no .h5 files; check root and split of this dataset.")
    for file in files:
        with _arrays(file, "rgb", "depth") as (rgb, depth):
            yield file.relative_to(folder).with_suffix("").as_posix(), rgb[:].transpose(1, 2, 0), depth[:]


@contextmanager
def _arrays(file: Path, images: str, depths: str) -> Iterator[tuple[Any, Any]]:
    """Two arrays of an HDF5 file, read lazily: uint8 (..., 3, a, b) and numbers (..., a, b)."""
    h5py = import_extra("h5py", "hdf5", f"{file}: an HDF5 file")
    try:
        with h5py.File(file, "r", locking=False) as content:
            one, other = content[images], content[depths]
            if one.dtype != np.uint8 or one.shape != (*other.shape[:-2], 3, *other.shape[-2:]):
                raise LayoutError(
                    f"{file}: {images} {one.dtype} {one.shape} and {depths} {other.shape} are not images of three "
                    "bytes per pixel and their depth; download it again."
                )
            yield one, other
    except (OSError, KeyError, AttributeError) as error:
        if "unable to lock file" in str(error):  # the environment has precedence over `locking`
            raise LayoutError(f"{file}: locked by another process; set HDF5_USE_FILE_LOCKING=FALSE.") from None
        raise LayoutError(f"{file}: cannot be read ({error}); remove it and download it again.") from None


def _write(folder: Path, frames: Iterator[Frame]) -> None:
    """Write all frames, all or nothing."""
    logger.info(f"{folder}: writing images and depth maps")
    with atomic_folder(folder) as beside:
        (beside / "rgb").mkdir()
        for name, image, depth in frames:
            png, npy = beside / "rgb" / f"{name}.png", beside / "depth" / f"{name}.npy"
            for file in (png, npy):
                file.parent.mkdir(parents=True, exist_ok=True)
            # Not compressed: the bytes, and therefore the fingerprint, must not depend on the version of zlib.
            Image.fromarray(np.ascontiguousarray(image)).save(png, compress_level=0)
            np.save(npy, np.ascontiguousarray(depth, np.float32))
