"""Oxford Flowers-102: the published files as they are, fetched by torchvision where they are missing."""

from __future__ import annotations

from pathlib import Path

from ssltransfer.config.formats import Flowers102
from ssltransfer.data.layouts import Found, LayoutError
from ssltransfer.data.layouts.fetch import alone, fetch

_SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}


def find(dataset: Flowers102, *, workers: int = 1) -> Found:
    """Pictures of a split in the order of setid.mat; class ids as torchvision's, published ones less 1.

    Raises:
        LayoutError: the set is not here and may not or cannot be downloaded, or its lists are damaged.
        ArtefactError: the disk is full.
    """
    from scipy.io import loadmat
    from torchvision import datasets

    root = Path(dataset.root)
    base = root / "flowers-102"
    # torchvision fetches these two after the pictures are unpacked.
    lists = (base / "imagelabels.mat", base / "setid.mat")
    if not (all(path.is_file() for path in lists) and (base / "jpg").is_dir()):
        with alone(root, dataset.format):
            fetch(dataset, root, lambda download: datasets.Flowers102(dataset.root, dataset.split, download=download))
    try:
        numbers = loadmat(lists[1], squeeze_me=True)[_SPLITS[dataset.split]].reshape(-1).tolist()
        labels = loadmat(lists[0], squeeze_me=True)["labels"].reshape(-1) - 1
        return Found(
            base,
            [f"jpg/image_{number:05d}.jpg" for number in numbers],
            [int(labels[number - 1]) for number in numbers],
            list(datasets.Flowers102.classes),
        )
    except (ValueError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        raise LayoutError(
            f"{base}: setid.mat or imagelabels.mat cannot be read ({error}); remove them and run again."
        ) from None
