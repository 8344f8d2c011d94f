"""CIFAR-10, CIFAR-100 and STL-10: downloaded and verified by torchvision, converted to one PNG file per image."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from ssltransfer.artifacts.files import atomic_folder
from ssltransfer.config.formats import Cifar10, Cifar100, Stl10
from ssltransfer.data.formats import FORMATS, DatasetListing, folders
from ssltransfer.data.formats.download import download_lock, fetch
from ssltransfer.logs import logger


@FORMATS.register(Cifar10, Cifar100, Stl10)
def find(dataset: Cifar10 | Cifar100 | Stl10, *, workers: int = 1) -> DatasetListing:
    """Images of a split; the first call writes root/<format>-png/<split>/<class>/<position in the split>.png.

    The sorted class names are in the order of the published ids. STL-10's unlabeled part has one folder of that name
    and no labels.
    """
    root = Path(dataset.root)
    folder = root / f"{dataset.format}-png" / dataset.split
    if not folder.is_dir():
        with download_lock(root, dataset.format):
            if not folder.is_dir():
                images, labels, classes = fetch(dataset, root, lambda download: _load(dataset, download))
                _export(folder, images, [classes[label] for label in labels], workers)
    return folders.find_images(folder) if dataset.label_type == "none" else folders.find_classes(folder)


def _load(dataset: Cifar10 | Cifar100 | Stl10, download: bool) -> tuple[np.ndarray, Sequence[int], list[str]]:
    """uint8 (N, H, W, 3), the class of each image, and the classes' names."""
    from torchvision import datasets

    if isinstance(dataset, Stl10):
        stl = datasets.STL10(dataset.root, split=dataset.split, download=download)
        images = stl.data.transpose(0, 2, 3, 1)
        if dataset.split == "unlabeled":
            return images, [0] * len(images), ["unlabeled"]
        return images, np.asarray(stl.labels).tolist(), stl.classes
    kind = datasets.CIFAR100 if isinstance(dataset, Cifar100) else datasets.CIFAR10
    cifar = kind(dataset.root, train=dataset.split == "train", download=download)
    return cifar.data, cifar.targets, cifar.classes


def _export(folder: Path, images: np.ndarray, names: list[str], workers: int) -> None:
    """Write all images, all or nothing."""
    paths = [f"{name}/{number:05d}.png" for number, name in enumerate(names, 1)]
    logger.info(f"{folder}: writing {len(paths)} images")
    with atomic_folder(folder) as beside, ThreadPoolExecutor(workers) as pool:
        for name in set(names):
            (beside / name).mkdir()

        def save(rows: range) -> None:
            for row in rows:
                # Not compressed: the bytes, and therefore the fingerprint, must not depend on the version of zlib.
                Image.fromarray(np.ascontiguousarray(images[row])).save(beside / paths[row], compress_level=0)

        list(pool.map(save, (range(start, min(start + 500, len(paths))) for start in range(0, len(paths), 500))))
