"""Sets that torchvision fetches, on archives made here in the published form; only the checksums are replaced."""

import hashlib
import multiprocessing
import pickle
import tarfile
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from scipy.io import savemat

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.formats import Cifar10, Cifar100, Flowers102, Places365, Stl10
from ssltransfer.data.formats import LayoutError, download, find, torchvision_sets
from ssltransfer.data.image_io import read


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def cifar(root: Path, kind: Any, monkeypatch: pytest.MonkeyPatch, n: int = 12) -> np.ndarray:
    """Batches of n images as pickles; the pixels of the test batch, (n, 32, 32, 3)."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    names = ["ape", "bee", "cow"]
    key = "fine_labels" if kind.meta["key"] == "fine_label_names" else "labels"
    rng = np.random.default_rng(0)
    flat = np.empty(0)
    for name, _ in kind.train_list + kind.test_list:
        flat = rng.integers(0, 256, (n, 3072), np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": flat, key: [place % 3 for place in range(n)]}))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: names}))
    monkeypatch.setattr(kind, "train_list", [[name, md5(folder / name)] for name, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[name, md5(folder / name)] for name, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(folder / kind.meta["filename"])})
    return flat.reshape(n, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("kind", "spec"), [(torchvision.datasets.CIFAR10, Cifar10), (torchvision.datasets.CIFAR100, Cifar100)]
)
def test_cifar_pixels_and_labels_are_preserved(
    tmp_path: Path, kind: Any, spec: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = cifar(tmp_path, kind, monkeypatch)
    found = find(spec(root=str(tmp_path), split="test", download=False), workers=2)
    assert found.classes == ["ape", "bee", "cow"]
    assert found.labels is not None
    for path, label in zip(found.paths, found.labels, strict=True):
        place = int(Path(path).stem) - 1
        assert np.array_equal(read(found.root / path).permute(1, 2, 0).numpy(), pixels[place])
        assert label == place % 3
    batches = len(kind.train_list)
    assert len(find(spec(root=str(tmp_path), split="train", download=False)).paths) == 12 * batches


def test_export_needs_no_archive_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar(tmp_path, torchvision.datasets.CIFAR10, monkeypatch)
    spec = Cifar10(root=str(tmp_path), split="test", download=False)
    before = find(spec)
    for path in (tmp_path / "cifar-10-batches-py").iterdir():
        path.unlink()
    assert find(spec) == before


def test_export_restarts_when_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar(tmp_path, torchvision.datasets.CIFAR10, monkeypatch)
    leftover = tmp_path / "cifar10-png" / ".test.partial" / "ape" / "99999.png"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    found = find(Cifar10(root=str(tmp_path), split="test", download=False))
    assert len(found.paths) == 12
    assert not leftover.parent.parent.exists()


def test_stl10_includes_unlabeled_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = torchvision.datasets.STL10
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    rng = np.random.default_rng(1)
    data = {name: rng.integers(0, 256, (6, 3, 96, 96), np.uint8) for name in ("train", "test", "unlabeled")}
    for name, pixels in data.items():
        pixels.tofile(folder / f"{name}_X.bin")
        (np.arange(6, dtype=np.uint8) % 2 + 1).tofile(folder / f"{name}_y.bin")
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    for listed in ("train_list", "test_list"):
        monkeypatch.setattr(kind, listed, [[name, md5(folder / name)] for name, _ in getattr(kind, listed)])
    train = find(Stl10(root=str(tmp_path), split="train", download=False))
    assert (train.labels, train.classes) == ([0, 0, 0, 1, 1, 1], ["airplane", "bird"])
    free = find(Stl10(root=str(tmp_path), split="unlabeled", download=False))
    assert free.labels is None
    assert free.paths == [f"unlabeled/{place:05d}.png" for place in range(1, 7)]
    # In the file the columns come first.
    first = read(free.root / free.paths[0]).numpy()
    assert np.array_equal(first, data["unlabeled"][0].transpose(0, 2, 1))


def test_flowers_are_used_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = torchvision.datasets.Flowers102
    base = tmp_path / "flowers-102"
    (base / "jpg").mkdir(parents=True)
    savemat(base / "imagelabels.mat", {"labels": np.array([[7, 1, 102, 1]], np.uint8)})
    savemat(base / "setid.mat", {"trnid": [[4, 1]], "valid": [[2, 3]], "tstid": [[3, 1]]})
    sums = {key: (name, md5(base / name) if key != "image" else "") for key, (name, _) in kind._file_dict.items()}
    monkeypatch.setattr(kind, "_file_dict", sums)
    for split in ("train", "val", "test"):
        reference = kind(tmp_path, split)
        found = find(Flowers102(root=str(tmp_path), split=split, download=False))
        assert [found.root / path for path in found.paths] == reference._image_files
        assert found.labels == reference._labels
        assert len(found.classes) == 102
    (base / "setid.mat").write_bytes(b"\0" * 300)
    with pytest.raises(LayoutError, match=r"setid.mat: cannot be read"):
        find(Flowers102(root=str(tmp_path), split="val", download=False))


@pytest.mark.parametrize(
    "spec",
    [
        Cifar10(split="train", download=False),
        Cifar100(split="train", download=False),
        Stl10(split="unlabeled", download=False),
        Flowers102(split="val", download=False),
        Places365(split="val", download=False),
    ],
    ids=lambda spec: spec.format,
)
def test_missing_set_without_download_is_reported(tmp_path: Path, spec: Cifar10) -> None:
    with pytest.raises(LayoutError) as refusal:
        find(spec.model_copy(update={"root": str(tmp_path)}))
    assert f"{spec.format} is missing or damaged; set download: true" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "spec", [Cifar10(split="train"), Flowers102(split="val"), Places365(split="val")], ids=lambda spec: spec.format
)
def test_download_reports_missing_network(tmp_path: Path, spec: Cifar10, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(LayoutError, match=r"cannot be downloaded \(no route to host\); check the network, or put"):
        find(spec.model_copy(update={"root": str(tmp_path)}))


def test_download_reports_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", lambda url, path: Path(path).write_bytes(b"half"))
    with pytest.raises(LayoutError, match=r"was downloaded but is damaged \(File not found or corrupted"):
        find(Cifar10(root=str(tmp_path), split="train"))


def test_download_is_unpacked_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way with a network that hands out a small archive."""
    kind = torchvision.datasets.CIFAR10
    cifar(tmp_path / "far", kind, monkeypatch)
    archive = tmp_path / "far" / kind.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "far" / kind.base_folder, kind.base_folder)
    monkeypatch.setattr(kind, "tgz_md5", md5(archive))
    fetched: list[str] = []

    def retrieve(url: str, path: str) -> None:
        fetched.append(url)
        Path(path).write_bytes(archive.read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", retrieve)
    root = tmp_path / "near"
    assert len(find(Cifar10(root=str(root), split="test")).paths) == 12
    assert len(find(Cifar10(root=str(root), split="train")).paths) == 60
    assert fetched == [kind.url]


def _hold(root: Path, name: str, begun: Path, done: Path) -> None:
    with download.download_lock(root, name):
        begun.touch()
        time.sleep(0.5)
        done.touch()


def test_download_is_exclusive(tmp_path: Path) -> None:
    begun, done = tmp_path / "begun", tmp_path / "done"
    other = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path, "cifar10", begun, done))
    other.start()
    while not begun.exists():
        time.sleep(0.01)
    with download.download_lock(tmp_path, "stl10"):
        assert not done.exists()
    with download.download_lock(tmp_path, "cifar10"):
        assert done.exists()
    other.join()


def test_export_leaves_no_partial_set_on_full_disk(small_disk: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (600, 32, 32, 3), np.uint8)
    with pytest.raises(ArtifactError, match="the disk is full"):
        torchvision_sets._export(small_disk / "cifar10-png" / "train", images, ["a"] * 600, 1)
    assert not (small_disk / "cifar10-png" / "train").exists()


def test_torchvision_sets_have_published_sizes() -> None:
    assert Stl10(split="unlabeled").estimated_num_images == 100_000
    assert Cifar10(split="train", limit=10).estimated_num_images == 10
    assert sum(Flowers102(split=split).estimated_num_images or 0 for split in ("train", "val", "test")) == 8_189
    assert Places365(split="train").estimated_num_images == 1_803_460
