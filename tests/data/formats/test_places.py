"""Places205 and Places365: images and labels are those of the published lists."""

import hashlib
from pathlib import Path

import pytest
import torchvision

from ssltransfer.config.formats import Places205, Places365
from ssltransfer.data.formats import LayoutError, find

LISTS = {
    "categories_places365.txt": "/a/airfield 0\n/a/alley 1\n/b/bar 2\n",
    "places365_train_standard.txt": "/a/alley/2.jpg 1\n/a/airfield/1.jpg 0\n/b/bar/3.jpg 2\n",
    "places365_val.txt": "Places365_val_00000001.jpg 2\nPlaces365_val_00000002.jpg 0\n",
}


def lay_out(root: Path, folders: tuple[str, ...]) -> None:
    root.mkdir(exist_ok=True)
    for name, text in LISTS.items():
        (root / name).write_text(text)
    for name in folders:
        (root / name).mkdir()


@pytest.mark.parametrize(("split", "theirs"), [("train", "train-standard"), ("val", "val")])
def test_places365_matches_torchvision(
    tmp_path: Path, split: str, theirs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path, ("data_256_standard", "val_256"))
    kind = torchvision.datasets.Places365
    sums = {name: (name, hashlib.md5(text.encode()).hexdigest()) for name, text in LISTS.items()}
    monkeypatch.setattr(kind, "_CATEGORIES_META", sums["categories_places365.txt"])
    lists = {key: sums.get(name, (name, sum_)) for key, (name, sum_) in kind._FILE_LIST_META.items()}
    monkeypatch.setattr(kind, "_FILE_LIST_META", lists)
    reference = kind(str(tmp_path), theirs, small=True)
    found = find(Places365(root=str(tmp_path), split=split, download=False))
    assert found.labels is not None
    ours = [(str(found.root / path), label) for path, label in zip(found.paths, found.labels, strict=True)]
    assert ours == reference.imgs
    assert [f"/{name}" for name in found.classes] == reference.classes


def test_places365_reads_unpacked_archive(tmp_path: Path) -> None:
    lay_out(tmp_path, ("data_256",))
    assert find(Places365(root=str(tmp_path), split="train", download=False)).root == tmp_path / "data_256"
    with pytest.raises(LayoutError, match="places365 is missing or damaged; set download: true"):
        find(Places365(root=str(tmp_path), split="val", download=False))


def test_places365_repeats_interrupted_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while unpacking: torchvision alone would accept the partly unpacked folder."""
    kind = torchvision.datasets.Places365
    names: list[str] = []

    def download(url: str, root: str, **_: object) -> None:
        names.append(url.rsplit("/", 1)[1])
        if names[-1].startswith("filelist"):
            lay_out(Path(root), ())
        else:
            (Path(root) / "val_256").mkdir()
            (Path(root) / "val_256" / "1.jpg").touch()
            if len(names) == 2:
                raise KeyboardInterrupt
            (Path(root) / "val_256" / "2.jpg").touch()
        (Path(root) / names[-1]).touch()

    monkeypatch.setattr("torchvision.datasets.places365.download_and_extract_archive", download)
    sums = {name: (name, hashlib.md5(text.encode()).hexdigest()) for name, text in LISTS.items()}
    monkeypatch.setattr(kind, "_CATEGORIES_META", sums["categories_places365.txt"])
    monkeypatch.setattr(kind, "_FILE_LIST_META", {"val": sums["places365_val.txt"]})
    with pytest.raises(KeyboardInterrupt):
        find(Places365(root=str(tmp_path), split="val"))
    assert not (tmp_path / "val_256").exists()
    found = find(Places365(root=str(tmp_path), split="val"))
    assert sorted(path.name for path in (tmp_path / "val_256").iterdir()) == ["1.jpg", "2.jpg"]
    assert found.labels == [2, 0]
    assert (tmp_path / "val_256.tar").exists()
    assert not (tmp_path / ".places365.partial").exists()


@pytest.mark.parametrize("folder", ["images256", "data/vision/torralba/deeplearning/images256"])
@pytest.mark.parametrize("lists", [".", "trainvalsplit_places205"])
def test_places205_lists(tmp_path: Path, folder: str, lists: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / lists).mkdir(exist_ok=True)
    listing = tmp_path / lists / "val_places205.csv"
    listing.write_text("b/bar/outdoor/x.jpg 2\na/abbey/y z.jpg 0\n", "utf-8" if lists == "." else "utf-8-sig")
    found = find(Places205(root=str(tmp_path), split="val"))
    assert found.root == tmp_path / folder
    assert found.paths == ["b/bar/outdoor/x.jpg", "a/abbey/y z.jpg"]
    assert found.labels == [2, 0]
    assert found.classes == ["a/abbey", "class 1", "b/bar/outdoor"]
    assert "published number is 20500" in found.notes[0]


def test_places_report_layout_errors(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"train_places205.csv is missing; unpack the lists and images"):
        find(Places205(root=str(tmp_path), split="train"))
    (tmp_path / "train_places205.csv").write_text("a/abbey/1.jpg\n")
    with pytest.raises(LayoutError, match="images256 is missing"):
        find(Places205(root=str(tmp_path), split="train"))
    (tmp_path / "images256").mkdir()
    with pytest.raises(LayoutError, match="line 1 is not a path and a number"):
        find(Places205(root=str(tmp_path), split="train"))
    lay_out(tmp_path, ("val_256",))
    (tmp_path / "places365_val.txt").write_text("x.jpg 364\n")
    with pytest.raises(LayoutError, match="label 364 has no name"):
        find(Places365(root=str(tmp_path), split="val", download=False))
