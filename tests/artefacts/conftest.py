"""A disk that fills up at once, and an index without pictures behind it."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ssltransfer.artefacts.index import Index


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs '{folder}' 2>/dev/null"):
        pytest.skip("mounting a small disk needs root")
    yield folder
    os.system(f"umount '{folder}'")


@pytest.fixture
def index() -> Index:
    """Three pictures of two classes."""
    return Index(
        root=Path("pictures"),
        paths=["a/1.jpg", "a/2.jpg", "b/3.jpg"],
        labels=np.array([0, 0, 1], np.int32),
        classes=["a", "b"],
        sizes=np.array([[10, 20], [30, 40], [50, 60]], np.int32),
        digests=["d1", "d2", "d3"],
        remarks={"a/2.jpg": "turned upright"},
        left_out={"c.txt": "not a picture's file name"},
        spec={"format": "folder"},
    )
