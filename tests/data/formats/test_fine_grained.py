"""CUB-200-2011 and Stanford Cars: images, classes and splits are those of the published lists."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import StanfordCars

from ssltransfer.config.formats import Cars196, Cub200
from ssltransfer.data.formats import LayoutError, find

BIRDS = [
    ("001.Albatross/a.jpg", 1, 1),
    ("001.Albatross/b.jpg", 1, 0),
    ("002.Auk/c.jpg", 2, 0),
    ("003.Wren/d.jpg", 3, 1),
]
CARS = {"train": [("00001.jpg", 2), ("00002.jpg", 1)], "test": [("00001.jpg", 4), ("00002.jpg", 3), ("00003.jpg", 1)]}
NAMES = ["Acura", "Audi", "BMW", "Volvo"]


def cub(root: Path) -> Path:
    (root / "images.txt").write_text("".join(f"{n} {path}\n" for n, (path, _, _) in enumerate(BIRDS, 1)))
    (root / "image_class_labels.txt").write_text("".join(f"{n} {label}\n" for n, (_, label, _) in enumerate(BIRDS, 1)))
    (root / "train_test_split.txt").write_text("".join(f"{n} {train}\n" for n, (_, _, train) in enumerate(BIRDS, 1)))
    (root / "classes.txt").write_text("1 001.Albatross\n2 002.Auk\n3 003.Wren\n4 004.Jay\n")
    return root


def structs(rows: list[dict[str, object]]) -> np.ndarray:
    made = np.zeros((1, len(rows)), [(name, object) for name in rows[0]])
    for place, row in enumerate(rows):
        made[0, place] = tuple(row.values())
    return made


def cars(root: Path, *, single: bool) -> Path:
    names = np.array(NAMES, object)[None]
    if single:
        rows = [
            {"relative_im_path": f"car_ims/{split}-{name}", "class": label, "test": int(split == "test")}
            for split, pairs in CARS.items()
            for name, label in pairs
        ]
        savemat(root / "cars_annos.mat", {"annotations": structs(rows), "class_names": names})
        return root
    (root / "devkit").mkdir()
    savemat(root / "devkit/cars_meta.mat", {"class_names": names})
    for split, path in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = [{"bbox_x1": 1, "class": label, "fname": name} for name, label in CARS[split]]
        savemat(root / path, {"annotations": structs(rows)})
        (root / f"cars_{split}").mkdir()
        for name, _ in CARS[split]:
            Image.new("RGB", (8, 8)).save(root / f"cars_{split}" / name)
    return root


@pytest.mark.parametrize(
    ("split", "expected"),
    [("train", [0, 3]), ("test", [1, 2]), ("zero-shot-train", [0, 1, 2]), ("zero-shot-test", [3])],
)
def test_cub_splits_and_labels(tmp_path: Path, split: str, expected: list[int]) -> None:
    found = find(Cub200(root=str(cub(tmp_path)), split=split))
    assert found.paths == [f"images/{BIRDS[place][0]}" for place in expected]
    assert found.labels == [BIRDS[place][1] - 1 for place in expected]
    assert found.classes[0] == "001.Albatross" and len(found.classes) == 4
    assert "the published number is" in found.notes[0]


def test_cub_lists_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    plain = find(Cub200(root=str(cub(tmp_path)), split="train"))
    (tmp_path / "images.txt").write_text((tmp_path / "images.txt").read_text(), "utf-8-sig")
    assert find(Cub200(root=str(tmp_path), split="train")).paths == plain.paths


@pytest.mark.parametrize("split", ["train", "test"])
def test_cars_match_torchvision(tmp_path: Path, split: str) -> None:
    root = tmp_path / "stanford_cars"
    root.mkdir()
    cars(root, single=False)
    reference = StanfordCars(str(tmp_path), split)
    found = find(Cars196(root=str(root), split=split))
    assert found.labels is not None and found.classes == reference.classes
    ours = [(str(root / path), label) for path, label in zip(found.paths, found.labels, strict=True)]
    assert ours == [(str(path), label) for path, label in reference._samples]


@pytest.mark.parametrize("single", [False, True])
def test_cars_zero_shot_halves(tmp_path: Path, single: bool) -> None:
    root = cars(tmp_path, single=single)
    first, second = (find(Cars196(root=str(root), split=f"zero-shot-{half}")) for half in ("train", "test"))
    assert first.labels == [1, 0, 0] and second.labels == [3, 2]
    assert second.paths[0] == ("car_ims/test-00001.jpg" if single else "cars_test/00001.jpg")


def test_fine_grained_reports_missing_and_damaged_lists(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"images\.txt: missing; `root` must be the folder CUB_200_2011, with"):
        find(Cub200(root=str(tmp_path), split="train"))
    (cub(tmp_path) / "image_class_labels.txt").write_text("1 1\n2 1\n3 2\n")
    with pytest.raises(LayoutError, match="the lists do not match at '4'"):
        find(Cub200(root=str(tmp_path), split="train"))
    with pytest.raises(LayoutError, match=r"cars_train_annos\.mat: missing"):
        find(Cars196(root=str(tmp_path), split="train"))
    savemat(
        tmp_path / "cars_annos.mat", {"annotations": structs([{"class": 1}]), "class_names": np.array([["a"]], object)}
    )
    with pytest.raises(LayoutError, match="do not have the published fields"):
        find(Cars196(root=str(tmp_path), split="train"))
