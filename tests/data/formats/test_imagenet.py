"""ImageNet: three ways in which it lies on disks give the same labels as torchvision's ImageNet."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import imagenet as reference

from ssltransfer.config.formats import ImageNet
from ssltransfer.data.formats import LayoutError, find

# As in the real devkit, ids are not in the order of the WordNet ids, and inner nodes follow the leaves.
SYNSETS = [(1, "n03"), (2, "n01"), (3, "n02"), (4, "n00")]
TRUTH = [3, 1, 2, 2, 1, 3]


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(path, format="PNG")


def devkit(folder: Path) -> None:
    kinds = [("ILSVRC2012_ID", float), ("WNID", object), ("words", object), ("gloss", object), ("num_children", float)]
    rows = [(number, wnid, f"{wnid}, thing", "gloss", 3 if wnid == "n00" else 0) for number, wnid in SYNSETS]
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / "meta.mat", {"synsets": np.array(rows, kinds)})
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in TRUTH))


def packed(root: Path, content: Path) -> None:
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        tar.add(content, "ILSVRC2012_devkit_t12/data")


def flat(root: Path) -> None:
    for number in range(1, len(TRUTH) + 1):
        image(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")


@pytest.mark.parametrize("place", [".", "data", "ILSVRC2012_devkit_t12/data", "archive"])
def test_flat_val_labels_match_torchvision(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, spare = tmp_path / "root", tmp_path / "spare"
    root.mkdir()
    flat(root)
    devkit(spare)
    packed(spare, spare)
    if place == "archive":
        packed(root, spare)
    else:
        devkit(root / place)
    # torchvision reads only the archive of the published checksum.
    monkeypatch.setattr(reference, "_verify_archive", lambda *_: None)
    reference.parse_devkit_archive(spare)
    wnids = reference.load_meta_file(spare)[1]
    found = find(ImageNet(root=str(root), split="val"))
    assert found.classes == ["n01", "n02", "n03"]
    assert found.labels is not None
    assert [found.classes[label] for label in found.labels] == wnids
    assert found.paths == [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 7)]


def test_flat_val_missing_image_keeps_other_labels(tmp_path: Path) -> None:
    flat(tmp_path)
    devkit(tmp_path)
    whole = find(ImageNet(root=str(tmp_path), split="val"))
    assert whole.labels is not None
    (tmp_path / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    part = find(ImageNet(root=str(tmp_path), split="val"))
    assert part.labels == [whole.labels[place] for place in (0, 2, 3, 4, 5)]


def test_imagenet_part_has_consistent_class_ids(tmp_path: Path) -> None:
    for wnid in ("n02", "n03"):
        image(tmp_path / "train" / wnid / "1.JPEG")
    flat(tmp_path)
    devkit(tmp_path)
    train, val = (find(ImageNet(root=str(tmp_path), split=split)) for split in ("train", "val"))
    assert train.classes == val.classes == ["n02", "n03"]
    assert val.labels == [0, 1, 1, 0]
    assert list(val.skipped.values()) == ["its class n01 is not in train"] * 2


def test_val_folders_are_numbered_by_train(tmp_path: Path) -> None:
    for name in ("train/n01/1.JPEG", "train/n02/1.JPEG", "train/n03/1.JPEG", "val/n03/1.JPEG"):
        image(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / name)
    val = find(ImageNet(root=str(tmp_path), split="val"))
    assert (val.labels, val.classes) == ([2], ["n01", "n02", "n03"])
    image(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val" / "n09" / "1.JPEG")
    with pytest.raises(LayoutError, match="class 'n09' is not in train"):
        find(ImageNet(root=str(tmp_path), split="val"))


def test_imagenet_unexpected_size_gives_note(tmp_path: Path) -> None:
    image(tmp_path / "train" / "n01" / "1.JPEG")
    found = find(ImageNet(root=str(tmp_path), split="train"))
    assert found.notes == [f"{found.root}: found 1 images; the published number is 1281167."]
    assert ImageNet(root="x", split="val").estimated_num_images == 50_000
    assert ImageNet(root="x", split="val", limit=100).estimated_num_images == 100


def test_imagenet_reports_layout_errors(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="root must contain train/WNID or val"):
        find(ImageNet(root=str(tmp_path), split="val"))
    flat(tmp_path)
    with pytest.raises(LayoutError, match=r"put ILSVRC2012_devkit_t12.tar.gz here"):
        find(ImageNet(root=str(tmp_path), split="val"))
    archive = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    archive.write_bytes(b"no archive")
    with pytest.raises(LayoutError, match=r"tar.gz: cannot be unpacked"):
        find(ImageNet(root=str(tmp_path), split="val"))
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("other"), io.BytesIO())
    with pytest.raises(LayoutError, match=r"does not contain .*meta.mat"):
        find(ImageNet(root=str(tmp_path), split="val"))
    devkit(tmp_path)
    (tmp_path / "meta.mat").write_bytes(b"\0" * 200)
    with pytest.raises(LayoutError, match="cannot be read"):
        find(ImageNet(root=str(tmp_path), split="val"))
    devkit(tmp_path)
    image(tmp_path / "val" / "ILSVRC2012_val_00000007.JPEG")
    with pytest.raises(LayoutError, match=r"has no line for this image; it has 6 lines"):
        find(ImageNet(root=str(tmp_path), split="val"))
