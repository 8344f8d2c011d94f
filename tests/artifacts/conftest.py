"""An index without images behind it."""

from pathlib import Path

import numpy as np
import pytest

from ssltransfer.artifacts.index import Index


@pytest.fixture
def index() -> Index:
    """Three images of two classes."""
    return Index(
        root=Path("images"),
        paths=["a/1.jpg", "a/2.jpg", "b/3.jpg"],
        labels=np.array([0, 0, 1], np.int32),
        classes=["a", "b"],
        sizes=np.array([[10, 20], [30, 40], [50, 60]], np.int32),
        digests=["d1", "d2", "d3"],
        notes={"a/2.jpg": "turned upright"},
        skipped={"c.txt": "not an image's file name"},
        spec={"format": "folder"},
    )
