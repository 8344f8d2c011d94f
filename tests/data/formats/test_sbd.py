"""SBD as published: MATLAB masks, lists and skipped images. VOC's list without SBD's images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ssltransfer.artifacts.index import read_index
from ssltransfer.config.base import NameFile
from ssltransfer.config.formats import Sbd, Voc
from ssltransfer.data.formats import LayoutError, find
from ssltransfer.data.formats.voc import CLASSES
from ssltransfer.data.targets import read_target
from ssltransfer.stages.index import run as make_index


def mask_of(number: int) -> np.ndarray:
    """Background, a block of class `number` and one of class 20."""
    mask = np.zeros((12, 16), np.uint8)
    mask[2:7, 3:9], mask[8:, 10:] = number, 20
    return mask


def release(root: Path, ids: dict[str, int]) -> Path:
    """The released folder dataset/, with the structure of its MATLAB files."""
    home = root / "benchmark_RELEASE" / "dataset"
    for folder in ("img", "cls"):
        (home / folder).mkdir(parents=True)
    for name, number in ids.items():
        Image.fromarray(np.full((12, 16, 3), number, np.uint8)).save(home / "img" / f"{name}.jpg")
        content = {"Boundaries": np.zeros((20, 1), object), "Segmentation": mask_of(number)}
        savemat(home / "cls" / f"{name}.mat", {"GTcls": content | {"CategoriesPresent": np.array([[number], [20]])}})
    (home / "train.txt").write_text("".join(f"{name}\n" for name in ids))
    return home


@pytest.mark.parametrize("spelling", [".", "benchmark_RELEASE", "benchmark_RELEASE/dataset"])
def test_sbd_lists_images_masks_and_classes(tmp_path: Path, spelling: str) -> None:
    home = release(tmp_path, {"2008_000002": 7, "2008_000007": 12})
    found = find(Sbd(root=str(tmp_path / spelling), split="train"))
    assert found.root.resolve() == home.resolve()
    assert found.paths == ["img/2008_000002.jpg", "img/2008_000007.jpg"]
    assert found.targets == ["cls/2008_000002.mat", "cls/2008_000007.mat"] and found.classes == list(CLASSES)
    assert find(Sbd(root=str(tmp_path / spelling), split="train", targets=None)).targets is None


def test_sbd_masks_round_trip(tmp_path: Path) -> None:
    release(tmp_path, {"a": 7, "b": 12})
    make_index(Sbd(root=str(tmp_path), split="train"), output=tmp_path / "sbd.parquet", threads=1)
    index = read_index(tmp_path / "sbd.parquet")
    assert index.multi_label is None and (index.labels == -1).all()
    for sample, number in enumerate((7, 12)):
        found = read_target(index, sample)
        assert isinstance(found, np.ndarray) and found.dtype == np.uint8
        assert np.array_equal(found, mask_of(number))


def test_sbd_invalid_masks_are_skipped_with_reason(tmp_path: Path) -> None:
    home = release(tmp_path, dict.fromkeys(["good", "also", "cut", "size", "field", "value", "gone"], 3))
    (home / "cls" / "cut.mat").write_bytes((home / "cls" / "cut.mat").read_bytes()[:90])
    savemat(home / "cls" / "size.mat", {"GTcls": {"Segmentation": np.zeros((16, 12), np.uint8)}})
    savemat(home / "cls" / "field.mat", {"GTinst": {"Segmentation": mask_of(3)}})
    savemat(home / "cls" / "value.mat", {"GTcls": {"Segmentation": mask_of(21)}})
    (home / "cls" / "gone.mat").unlink()
    with (home / "train.txt").open("a") as lines:
        lines.write("neither\n")
    make_index(
        Sbd(root=str(tmp_path), split="train", max_corrupt_fraction=0.9), output=tmp_path / "s.parquet", threads=1
    )
    index = read_index(tmp_path / "s.parquet")
    assert index.paths == ["img/good.jpg", "img/also.jpg"]
    reasons = {Path(path).stem: reason for path, reason in index.skipped.items()}
    assert reasons["cut"] == "mask is damaged (not a readable MATLAB file)"
    assert reasons["size"] == "mask of 12 x 16 pixels, the image has 16 x 12"
    assert reasons["field"] == "mask has no GTcls.Segmentation, where SBD keeps the class of each pixel"
    assert reasons["value"] == "mask contains the value 21; expected 0 to 20, or 255 for void"
    assert reasons["gone"] == "gone.mat is missing"
    assert set(reasons) == {"cut", "size", "field", "value", "gone", "neither"}


def test_sbd_limit_keeps_masks_of_images(tmp_path: Path) -> None:
    numbers = {f"{number:02}": number for number in range(1, 15)}
    release(tmp_path, numbers)
    make_index(Sbd(root=str(tmp_path), split="train", limit=5), output=tmp_path / "s.parquet", threads=1)
    index = read_index(tmp_path / "s.parquet")
    assert len(index) == 5
    for sample, path in enumerate(index.paths):
        found = read_target(index, sample)
        assert isinstance(found, np.ndarray) and found.max() == 20
        assert np.array_equal(found, mask_of(numbers[Path(path).stem]))


def test_sbd_reports_layout_errors(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no img/ and cls/ in it or in dataset/"):
        find(Sbd(root=str(tmp_path), split="train"))
    release(tmp_path, {"a": 1})
    with pytest.raises(LayoutError, match=r"val\.txt: missing; available: train\."):
        find(Sbd(root=str(tmp_path), split="val"))


def test_voc_excludes_sbd_images(tmp_path: Path) -> None:
    sbd = release(tmp_path / "sbd", {"2008_1": 1, "2008_3": 2, "2009_7": 3})
    home = tmp_path / "VOC2012"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (home / folder).mkdir(parents=True)
    names = [f"2008_{number}" for number in range(1, 5)]
    (home / "ImageSets/Segmentation/val.txt").write_text("".join(f"{name}\n" for name in names))
    for number, name in enumerate(names):
        Image.fromarray(np.full((12, 16, 3), number, np.uint8)).save(home / f"JPEGImages/{name}.jpg")
        Image.fromarray(mask_of(5)).save(home / f"SegmentationClass/{name}.png")
    without = NameFile(path=str(sbd / "train.txt"))
    spec = Voc(root=str(tmp_path), year="2012", split="val", targets="masks", exclude=without)
    make_index(spec, output=tmp_path / "val.parquet", threads=1)
    index = read_index(tmp_path / "val.parquet")
    assert index.paths == ["JPEGImages/2008_2.jpg", "JPEGImages/2008_4.jpg"]
    assert index.targets is not None
    assert index.targets.paths == ["SegmentationClass/2008_2.png", "SegmentationClass/2008_4.png"]
