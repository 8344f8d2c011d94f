"""VOC devkit: every spelling of the root, lists or boxes, the same presence."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssltransfer.config.formats import Voc
from ssltransfer.data.formats import LayoutError, find
from ssltransfer.data.formats.voc import CLASSES, palette

OBJECTS = {
    "000001": [("cat", 0), ("cat", 1), ("dog", 1)],
    "000002": [],
    "000003": [("dog", 1), ("dog", 1), ("person", 0), ("not a class", 0)],
}


def devkit(root: Path, *, lists: bool = True, boxes: bool = True) -> Path:
    home = root / "VOCdevkit" / "VOC2007"
    main = home / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (home / "JPEGImages").mkdir()
    (home / "Annotations").mkdir()
    (main / "trainval.txt").write_text("".join(f"{name}\n" for name in OBJECTS))
    for name, objects in OBJECTS.items():
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(home / "JPEGImages" / f"{name}.jpg")
        xml = "".join(f"<object><name>{n}</name><difficult>{d}</difficult></object>" for n, d in objects)
        if boxes:
            (home / "Annotations" / f"{name}.xml").write_text(f"<annotation>{xml}</annotation>")
    for kind in CLASSES if lists else ():
        lines = []
        for name, objects in OBJECTS.items():
            difficult = [d for n, d in objects if n == kind]
            sign = -1 if not difficult else 1 if 0 in difficult else 0
            lines.append(f"{name} {sign:2d}\n")
        (main / f"{kind}_trainval.txt").write_text("".join(lines))
    return home


@pytest.mark.parametrize("spelling", [".", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_voc_accepts_root_variants(tmp_path: Path, spelling: str) -> None:
    home = devkit(tmp_path)
    found = find(Voc(root=str(tmp_path / spelling), split="trainval"))
    assert [found.root / path for path in found.paths] == [home / "JPEGImages" / f"{name}.jpg" for name in OBJECTS]
    assert all((found.root / path).is_file() for path in found.paths)


def test_voc_presence_marks_difficult(tmp_path: Path) -> None:
    devkit(tmp_path)
    found = find(Voc(root=str(tmp_path), split="trainval"))
    assert found.multi_label is not None
    said = [{CLASSES[c]: int(row[c]) for c in np.flatnonzero(row >= 0)} for row in found.multi_label]
    assert said == [{"cat": 1, "dog": 0}, {}, {"dog": 0, "person": 1}]
    assert found.notes == [f"{found.root}: found 3 images; the published number is 5011."]


def test_voc_presence_from_boxes_equals_lists(tmp_path: Path) -> None:
    devkit(tmp_path / "a")
    devkit(tmp_path / "b", lists=False)
    listed, boxed = (find(Voc(root=str(tmp_path / name), split="trainval")) for name in "ab")
    assert listed.multi_label is not None
    assert boxed.multi_label is not None
    assert np.array_equal(listed.multi_label, boxed.multi_label)
    assert "reading classes from Annotations" in boxed.notes[0]


def test_voc_ids_listed_twice_keep_their_labels(tmp_path: Path) -> None:
    home = devkit(tmp_path)
    (home / "ImageSets/Main/trainval.txt").write_text("000001\n000003\n000001\n")
    found = find(Voc(root=str(tmp_path), split="trainval"))
    assert found.multi_label is not None
    assert found.multi_label.max(1).tolist() == [1, 1, 1]
    assert (found.multi_label[0] == found.multi_label[2]).all()


def test_voc_lists_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    plain = devkit(tmp_path / "plain")
    marked = devkit(tmp_path / "marked")
    for path in (marked / "ImageSets" / "Main").glob("*.txt"):
        path.write_bytes("\ufeff".encode() + path.read_bytes())
    (one, other) = (find(Voc(root=str(home), split="trainval")) for home in (plain, marked))
    assert one.multi_label is not None and other.multi_label is not None
    assert one.paths == other.paths and np.array_equal(one.multi_label, other.multi_label)


def test_voc_lists_may_have_blanks(tmp_path: Path) -> None:
    home = devkit(tmp_path)
    (home / "JPEGImages/000001.jpg").rename(home / "JPEGImages/IMG 1.jpg")
    for path in (home / "ImageSets" / "Main").glob("*.txt"):
        path.write_text(path.read_text().replace("000001", "IMG 1"))
    found = find(Voc(root=str(tmp_path), split="trainval"))
    assert found.paths[0] == "JPEGImages/IMG 1.jpg"
    assert found.multi_label is not None
    assert found.multi_label[0, CLASSES.index("cat")] == 1


@pytest.mark.parametrize("targets", [None, "boxes"])
def test_voc_reports_objects_of_other_classes(tmp_path: Path, targets: str | None) -> None:
    home = devkit(tmp_path, lists=False)
    spec = Voc.model_validate({"root": str(tmp_path), "split": "trainval", "targets": targets})
    assert any("objects of other classes than VOC's are left out (1): 'not a class' 1" in n for n in find(spec).notes)
    for path in (home / "Annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("person", "Person").replace("cat", "airplane").replace("dog", "kite"))
    with pytest.raises(LayoutError, match=r"'airplane' 2 \(nearest: aeroplane\).* rename them to the 20 classes"):
        find(spec)
    (home / "Annotations/000001.xml").write_text('<?xml version="1.0" encoding="gb2312"?><annotation/>')
    with pytest.raises(LayoutError, match=r"000001\.xml: not valid XML"):
        find(spec)


def test_voc_has_published_sizes() -> None:
    assert Voc(root="x", split="test").estimated_num_images == 4_952
    assert Voc(root="x", year="2012", split="trainval").estimated_num_images == 11_540
    assert Voc(root="x", split="mine").estimated_num_images is None


def test_voc_reports_layout_errors(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no VOC2012/ImageSets/Main in it or in VOCdevkit"):
        find(Voc(root=str(tmp_path), year="2012", split="trainval"))
    home = devkit(tmp_path)
    with pytest.raises(LayoutError, match=r"available: trainval; the test split is in a separate archive"):
        find(Voc(root=str(tmp_path), split="test"))
    lists = home / "ImageSets" / "Main"
    (lists / "cat_trainval.txt").write_text("000001 yes\n")
    with pytest.raises(LayoutError, match=r"cat_trainval.txt: line 1 is not an image and -1, 0 or 1"):
        find(Voc(root=str(tmp_path), split="trainval"))
    (lists / "cat_trainval.txt").unlink()
    with pytest.raises(LayoutError, match=r"cat_trainval.txt: missing; expected a list for each of the 20 classes"):
        find(Voc(root=str(tmp_path), split="trainval"))
    for path in lists.glob("*_trainval.txt"):
        path.unlink()
    (home / "Annotations" / "000002.xml").write_text("<annotation>")
    with pytest.raises(LayoutError, match=r"000002.xml: not valid XML"):
        find(Voc(root=str(tmp_path), split="trainval"))
    (home / "Annotations" / "000002.xml").unlink()
    with pytest.raises(LayoutError, match="no class lists in ImageSets/Main either"):
        find(Voc(root=str(tmp_path), split="trainval"))


def test_palette_equals_devkit():
    # Background, aeroplane, bicycle, bird, tvmonitor and the border.
    assert palette()[[0, 1, 2, 3, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 64, 128], [224, 224, 192],
    ]  # fmt: skip
