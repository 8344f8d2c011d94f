"""Folders of images: every file is either an image or left out with a reason; class ids are torchvision's."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder as Reference

from ssltransfer.config.formats import Folder, ImageFolder
from ssltransfer.data.formats import LayoutError, find


def image(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 12, 3), value, np.uint8)).save(path, format="PNG")


def test_class_folders_match_torchvision(tmp_path: Path) -> None:
    for name in ("zebra/1.jpg", "Ant/b.jpg", "Ant/deep/er/a.png", "bee/c.JPEG", "bee/a b.jpg", "ant/x.jpg"):
        image(tmp_path / "train" / name)
    reference = Reference(tmp_path / "train")
    found = find(ImageFolder(root=str(tmp_path), split="train"))
    assert found.classes == reference.classes
    assert found.labels is not None
    ours = {(str(found.root / path), label) for path, label in zip(found.paths, found.labels, strict=True)}
    assert ours == set(reference.samples)
    assert found.paths == sorted(found.paths)


def test_folders_list_or_skip_every_file(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.PNG", "top.jpg", "b/.hidden.jpg", "b/3.gif", ".git/4.jpg", "b/notes.txt", "b/none"):
        image(tmp_path / name)
    found = find(Folder(root=str(tmp_path), labels="folder"))
    assert found.paths == ["a/1.jpg", "a/2.PNG", "b/3.gif"]
    assert found.labels == [0, 0, 1]
    assert found.skipped == {
        "top.jpg": "outside the class folders",
        "b/.hidden.jpg": "hidden file",
        ".git/": "hidden folder",
        "b/notes.txt": "not an image's file name",
        "b/none": "not an image's file name",
    }
    assert find(Folder(root=str(tmp_path))).paths == [*found.paths, "top.jpg"]


def test_folders_support_unusual_names(tmp_path: Path) -> None:
    names = [
        "a b/c d.jpg",
        'it\'s/"so".jpg',
        "x;y/$(z).jpg",
        "é/ü.jpg",
        "tab/a\tb.jpg",
        "line/a\nb.jpg",
        "back/a\\b.jpg",
    ]
    for name in names:
        image(tmp_path / name)
    assert find(Folder(root=str(tmp_path))).paths == sorted(names)


def test_folders_skip_names_of_invalid_utf8(tmp_path: Path) -> None:
    image(tmp_path / "good.jpg")
    try:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xffd.jpg"))).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system keeps such names out itself")
    found = find(Folder(root=str(tmp_path)))
    assert found.paths == ["good.jpg"]
    assert found.skipped == {"b\\xffd.jpg": "the file name is not valid UTF-8; rename it"}


def test_folders_follow_links_but_not_cycles(tmp_path: Path) -> None:
    image(tmp_path / "elsewhere" / "1.jpg")
    image(tmp_path / "root" / "a" / "2.jpg")
    (tmp_path / "root" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root")
    found = find(Folder(root=str(tmp_path / "root")))
    assert found.paths == ["a/2.jpg", "b/1.jpg"]
    assert found.skipped == {"a/up/": "a link back to a folder above it"}


def test_folders_skip_links_that_lead_nowhere(tmp_path: Path) -> None:
    image(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "loop.png").symlink_to("loop.png")
    (tmp_path / "loop").symlink_to("loop")
    for labels in ("folder", "none"):
        found = find(Folder(root=str(tmp_path), labels=labels))
        assert found.paths == ["a/1.png"]
        assert found.skipped.keys() == {"a/loop.png", "loop"}
        assert found.skipped["loop"].startswith("a link that leads nowhere")


def test_root_expands_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    image(tmp_path / "images" / "1.jpg")
    assert find(Folder(root="~/images")).root == tmp_path / "images"


def test_folders_report_layout_errors(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no such folder; check root and split"):
        find(Folder(root=str(tmp_path / "none")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError, match="no images found"):
        find(Folder(root=str(tmp_path / "empty")))
    image(tmp_path / "flat" / "1.jpg")
    with pytest.raises(LayoutError, match="no class folders found; set labels: none"):
        find(Folder(root=str(tmp_path / "flat"), labels="folder"))
    image(tmp_path / "sets" / "train" / "a" / "1.jpg")
    (tmp_path / "sets" / "train" / "b").mkdir()
    with pytest.raises(LayoutError, match="class folder 'b' has no images; fill or remove it"):
        find(ImageFolder(root=str(tmp_path / "sets"), split="train"))
    with pytest.raises(LayoutError, match="no split 'test'; available: train"):
        find(ImageFolder(root=str(tmp_path / "sets"), split="test"))
    with pytest.raises(LayoutError, match="its folders train are splits rather than classes; set split: train"):
        find(ImageFolder(root=str(tmp_path / "sets")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every folder")
def test_folders_report_unreadable_folder(tmp_path: Path) -> None:
    image(tmp_path / "a" / "1.jpg")
    image(tmp_path / "b" / "2.jpg")
    (tmp_path / "b").chmod(0)
    with pytest.raises(LayoutError, match="cannot be opened"):
        find(Folder(root=str(tmp_path)))


def test_num_images_hint_is_not_in_canonical_spec() -> None:
    plain, hinted = Folder(root="x"), Folder(root="x", num_images_hint=12_000)
    assert hinted.canonical() == plain.canonical()
    assert (plain.estimated_num_images, hinted.estimated_num_images) == (None, 12_000)
    assert Folder(root="x", num_images_hint=12_000, limit=500).estimated_num_images == 500
    assert Folder(root="x", num_images_hint=300, limit=500).estimated_num_images == 300


def test_folder_of_other_files_names_their_suffix(tmp_path: Path):
    (tmp_path / "cat").mkdir()
    for name in ("1.HEIC", "2.heic", "notes.txt"):
        (tmp_path / "cat" / name).touch()
    for dataset in (Folder(root=str(tmp_path)), ImageFolder(root=str(tmp_path))):
        with pytest.raises(LayoutError, match=r"but 2 files ending in \.heic"):
            find(dataset)
