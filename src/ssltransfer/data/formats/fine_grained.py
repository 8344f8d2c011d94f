"""CUB-200-2011 and Stanford Cars: their own splits, and the halves of the classes for zero-shot retrieval."""

from pathlib import Path

import numpy as np

from ssltransfer.config.formats import Cars196, Cub200
from ssltransfer.data.formats import FORMATS, DatasetListing, LayoutError, read_list, read_mat

Images = list[tuple[str, int, bool]]  # path, class from 0, whether it is in the training split


@FORMATS.register(Cub200, Cars196)
def find(dataset: Cub200 | Cars196, *, workers: int = 1) -> DatasetListing:
    """Images of a split in the order of the published lists."""
    root = Path(dataset.root)
    everything, classes = _cub(root) if isinstance(dataset, Cub200) else _cars(root)
    half = len(classes) // 2
    wanted = {
        "train": lambda number, train: train,
        "test": lambda number, train: not train,
        "zero-shot-train": lambda number, train: number < half,
        "zero-shot-test": lambda number, train: number >= half,
    }[dataset.split]
    chosen = [(path, number) for path, number, train in everything if wanted(number, train)]
    return DatasetListing(root, [path for path, _ in chosen], [number for _, number in chosen], classes)


def _cub(root: Path) -> tuple[Images, list[str]]:
    paths, labels, splits, classes = (
        _columns(root / name)
        for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    )
    number_of = {key: number for number, key in enumerate(classes)}
    try:
        found = [(f"images/{path}", number_of[labels[key]], splits[key] == "1") for key, path in paths.items()]
    except KeyError as error:
        raise LayoutError(f"{root}: the lists do not match at {error}; restore them.") from None
    return found, list(classes.values())


def _columns(path: Path) -> dict[str, str]:
    """Map the number at the start of each line to the rest of the line."""
    try:
        rows = [line.split(maxsplit=1) for line in read_list(path).splitlines() if line.strip()]
        return {key: value.strip() for key, value in rows}
    except FileNotFoundError:
        raise LayoutError(f"{path}: missing; `root` must be the folder CUB_200_2011, with its lists.") from None
    except (OSError, ValueError) as error:
        raise LayoutError(f"{path}: not a list of numbers and values ({error}); restore it.") from None


def _cars(root: Path) -> tuple[Images, list[str]]:
    try:
        if (root / "cars_annos.mat").is_file():
            content = _mat(root / "cars_annos.mat")
            rows = np.atleast_1d(content["annotations"])
            images = [(str(row["relative_im_path"]), int(row["class"]) - 1, not int(row["test"])) for row in rows]
            return images, [str(name) for name in content["class_names"]]
        kit = root / "devkit"
        # The first release of the devkit has no test labels; they were published in a separate file.
        tested = root / "cars_test_annos_withlabels.mat"
        if not tested.is_file() or (kit / tested.name).is_file():
            tested = kit / tested.name
        images = [
            (f"{folder}/{row['fname']}", int(row["class"]) - 1, folder == "cars_train")
            for folder, path in (("cars_train", kit / "cars_train_annos.mat"), ("cars_test", tested))
            for row in np.atleast_1d(_mat(path)["annotations"])
        ]
        return images, [str(name) for name in _mat(kit / "cars_meta.mat")["class_names"]]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise LayoutError(f"{root}: its .mat files do not have the published fields ({error}); restore them.") from None


def _mat(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise LayoutError(f"{path}: missing; `root` must contain cars_annos.mat, or devkit/ with the lists.")
    return read_mat(path.read_bytes(), str(path))
