"""CIFAR-10, CIFAR-100 and STL-10: fetched and checked by torchvision, kept as one PNG file a image."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from ssltransfer.artifacts.files import friendly_os_errors
from ssltransfer.config.formats import Cifar10, Cifar100, Stl10
from ssltransfer.data.formats import FORMATS, DatasetListing, folders
from ssltransfer.data.formats.download import download_lock, fetch


@FORMATS.register(Cifar10, Cifar100, Stl10)
def find(dataset: Cifar10 | Cifar100 | Stl10, *, workers: int = 1) -> DatasetListing:
    """Images of a split as root/<format>-png/<split>/<class>/<place in the split>.png, written at the first call.

    The classes' sorted names are in the order of the published ids. STL-10's unlabeled part has one folder of that
    name and no labels.

    Raises:
        LayoutError: the set is not here and may not or cannot be downloaded.
        ArtifactError: the disk is full.
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
    """Write all images beside, then give the folder its name."""
    beside = folder.with_name(f".{folder.name}.partial")
    places = [f"{name}/{place:05d}.png" for place, name in enumerate(names, 1)]

    def save(span: range) -> None:
        for row in span:
            # Not compressed: the bytes, and so the fingerprint, must not hang on the version of zlib.
            Image.fromarray(np.ascontiguousarray(images[row])).save(beside / places[row], compress_level=0)

    print(f"{folder}: writing {len(places)} images", flush=True)
    with friendly_os_errors(folder):
        shutil.rmtree(beside, ignore_errors=True)
        for name in set(names):
            (beside / name).mkdir(parents=True)
        with ThreadPoolExecutor(workers) as pool:
            parts = (range(start, min(start + 500, len(places))) for start in range(0, len(places), 500))
            list(pool.map(save, parts))
        # One call instead of a wait for the disk after each of the many small files.
        os.sync()
        beside.replace(folder)
