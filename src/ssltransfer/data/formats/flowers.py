"""Oxford Flowers-102: the published files, downloaded by torchvision if they are missing."""

from pathlib import Path

import numpy as np

from ssltransfer.config.formats import Flowers102
from ssltransfer.data.formats import FORMATS, DatasetListing, LayoutError, read_mat
from ssltransfer.data.formats.download import download_lock, fetch

_SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}


@FORMATS.register(Flowers102)
def find(dataset: Flowers102, *, workers: int = 1) -> DatasetListing:
    """Images of a split in the order of setid.mat; class ids as torchvision's, the published ones minus 1."""
    from torchvision import datasets

    root = Path(dataset.root)
    base = root / "flowers-102"
    # torchvision downloads these two after unpacking the images.
    lists = (base / "imagelabels.mat", base / "setid.mat")
    if not (all(path.is_file() for path in lists) and (base / "jpg").is_dir()):
        with download_lock(root, dataset.format):
            fetch(dataset, root, lambda download: datasets.Flowers102(dataset.root, dataset.split, download=download))
    labels, splits = (read_mat(path.read_bytes(), str(path)) for path in lists)
    try:
        numbers = np.atleast_1d(splits[_SPLITS[dataset.split]]).tolist()
        return DatasetListing(
            base,
            [f"jpg/image_{number:05d}.jpg" for number in numbers],
            [int(labels["labels"][number - 1]) - 1 for number in numbers],
            list(datasets.Flowers102.classes),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise LayoutError(f"{base}: {lists[0].name} and {lists[1].name} do not match ({error}); restore.") from None
