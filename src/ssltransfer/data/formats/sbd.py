"""Semantic Boundaries Dataset: a class per pixel for the images of VOC 2011's detection sets."""

from pathlib import Path

from ssltransfer.config.formats import Sbd
from ssltransfer.data.formats import FORMATS, DatasetListing, LayoutError
from ssltransfer.data.formats.voc import CLASSES, ids_of


@FORMATS.register(Sbd)
def find(dataset: Sbd, *, workers: int = 1) -> DatasetListing:
    """Images of a list, img/ID.jpg, and their masks, cls/ID.mat.

    The root may be the folder dataset/, its parent, or the parent of benchmark_RELEASE.
    """
    top = Path(dataset.root)
    places = (top, top / "dataset", top / "benchmark_RELEASE" / "dataset")
    root = next((place for place in places if (place / "img").is_dir() and (place / "cls").is_dir()), None)
    if root is None:
        raise LayoutError(f"{top}: no img/ and cls/ in it or in dataset/; check root of this dataset.")
    listing = root / f"{dataset.split}.txt"
    if not listing.is_file():
        there = ", ".join(sorted(path.stem for path in root.glob("*.txt"))) or "no lists"
        raise LayoutError(f"{listing}: missing; available: {there}.")
    ids = ids_of(listing, root / "img")
    return DatasetListing(
        root,
        [f"img/{name}.jpg" for name in ids],
        classes=list(CLASSES),
        targets=[f"cls/{name}.mat" for name in ids] if dataset.targets else None,
    )
