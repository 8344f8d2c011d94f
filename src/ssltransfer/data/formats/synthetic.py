"""The synthetic data set: drawn once, then read like any published set."""

from pathlib import Path
from typing import Any

import toyworld
from ssltransfer.config.formats import Synthetic, Voc
from ssltransfer.data.formats import FORMATS, DatasetListing, LayoutError, folders, voc


@FORMATS.register(Synthetic)
def find(dataset: Synthetic, *, workers: int = 1) -> DatasetListing:
    """Draw the images if they do not exist yet, in one folder per size and seed."""
    root = Path(dataset.root) / f"{dataset.subset}-{dataset.size}px-seed{dataset.seed}-n{dataset.num_images}"
    try:
        toyworld.generate(
            dataset.subset,
            root,
            split=dataset.split,
            num_images=dataset.num_images,
            size=dataset.size,
            seed=dataset.seed,
            workers=workers,
        )
    except ValueError as error:
        raise LayoutError(str(error)) from None
    if dataset.subset == "voc":
        kind: Any = dataset.targets
        return voc.find(Voc(root=str(root / "VOCdevkit"), split=dataset.split, targets=kind))
    if dataset.subset == "rgbd":
        found = folders.find_images(root / dataset.split / "rgb")
        if not dataset.targets:
            return found
        names = [path.removesuffix(".jpg") for path in found.paths]
        images, depth = [f"rgb/{name}.jpg" for name in names], [f"depth/{name}.png" for name in names]
        return DatasetListing(root / dataset.split, images, targets=depth)
    if dataset.subset == "clips":
        # All splits share one folder, and a list per split names the frames of its clips (DAVIS layout).
        lines = (root / "ImageSets" / "480p" / f"{dataset.split}.txt").read_text().splitlines()
        return DatasetListing(root, [line.split(" /Annotations/")[0].lstrip("/") for line in lines])
    return folders.find_classes(root / dataset.split)
