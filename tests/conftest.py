"""What several tests share: a handful of embedded images and their index, made once; a disk that fills up."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.artifacts.labels import Labels, write_labels
from ssltransfer.config.formats import Synthetic
from ssltransfer.stages import index as index_stage

# Equal bytes are promised on a CPU; SSLTRANSFER_TEST_CUDA=1 lets the tests that compare devices see a GPU.
if not os.environ.get("SSLTRANSFER_TEST_CUDA"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("SSLTRANSFER_WORKERS", "0")
# Two threads beside another busy process run many times slower than one.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of the longest tests come first, so that no process waits for the last of them alone."""
    limits: dict[Path, float] = {}
    for item in items:
        mark = item.get_closest_marker("timeout")
        limits[item.path] = max(limits.get(item.path, 0), mark.args[0] if mark else 0)
    items.sort(key=lambda item: -limits[item.path])


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A training that a test breaks off leaves its handlers, and a process forked later would not end when told to."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def objects_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index of 48 object images of 64 px, 12 classes."""
    folder = tmp_path_factory.mktemp("objects")
    spec = Synthetic(root=str(folder / "world"), subset="objects", split="train", num_images=48, size=64)
    index_stage.run(spec, output=folder / "objects.parquet", threads=1)
    return folder / "objects.parquet"


@pytest.fixture(scope="session")
def objects(objects_path: Path) -> Index:
    """The same, read."""
    return read_index(objects_path)


@pytest.fixture(scope="session")
def objects_val_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index of 24 other object images."""
    folder = tmp_path_factory.mktemp("objects_val")
    spec = Synthetic(root=str(folder / "world"), subset="objects", split="val", num_images=24, size=64)
    index_stage.run(spec, output=folder / "objects-val.parquet", threads=1)
    return folder / "objects-val.parquet"


@pytest.fixture
def labels_path(objects: Index, tmp_path: Path) -> Path:
    """Pseudo-labels of three clusters, in turns, for `objects`."""
    labels = (np.arange(len(objects)) % 3).astype(np.int32)
    distances = np.zeros(len(objects), np.float32)
    write_labels(tmp_path / "l.parquet", Labels(objects.paths, labels, distances, 3, objects.fingerprint, "x"))
    return tmp_path / "l.parquet"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs '{folder}' 2>/dev/null"):
        pytest.skip("mounting a small disk needs root")
    yield folder
    os.system(f"umount '{folder}'")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images that $SSLTRANSFER_REAL_DATA names."""
    folder = os.environ.get("SSLTRANSFER_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real images here: set SSLTRANSFER_REAL_DATA")
    return Path(folder)


@pytest.fixture(scope="session")
def real_objects(real_data: Path) -> Path:
    """Tiny-ImageNet's layout: 16 classes of 300 photographs of 64 pixels, and 800 others."""
    folder = real_data / "objects" / "tiny_imagenet"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing")
    return folder


@pytest.fixture(scope="session")
def kitchen(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with lists train.txt and test.txt of 44 and 12 frames of one real room, and their depth."""
    source = real_data / "rgbd" / "seven_scenes_redkitchen"
    folder = tmp_path_factory.mktemp("kitchen")
    (folder / "frames").symlink_to(source)
    for split in ("train", "test"):
        names = (source / f"{split}.txt").read_text().split()
        lines = (f"frames/{name}.color.jpg frames/{name}.depth.png\n" for name in names)
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder
