"""A gallery has all clusters and a limited size."""

from __future__ import annotations

import numpy as np
import pytest

from ssltransfer.artifacts.index import Index
from ssltransfer.artifacts.labels import Labels
from ssltransfer.looking import gallery
from ssltransfer.looking.gallery import COLUMNS, MAX_BYTES, build_gallery
from ssltransfer.report.thumbnails import sheets, tiles


def labels_of(index: Index, labels: np.ndarray, k: int) -> Labels:
    distances = np.linspace(1, 0, len(index), dtype=np.float32)
    return Labels(index.paths, labels.astype(np.int32), distances, k, index.fingerprint, "c")


def test_gallery_has_all_clusters_largest_first(objects: Index) -> None:
    labels = np.array([0] * 30 + [3] * 12 + [1] * 6)
    views = build_gallery(objects, labels_of(objects, labels, 5))
    assert [(view.number, view.size, view.shown) for view in views] == [(0, 30, 12), (3, 12, 12), (1, 6, 6)]
    classes = np.bincount(objects.labels[:30])
    assert views[0].classes[0][1] == classes.max() and views[0].purity == pytest.approx(100 * classes.max() / 30)
    assert len({view.uri for view in views}) == 3


def test_gallery_is_limited(objects: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "THUMBNAILS", 8)
    views = build_gallery(objects, labels_of(objects, np.arange(48) % 4, 4))
    assert [view.shown for view in views] == [2] * 4
    nearest = [tiles(objects, [44 + cluster, 40 + cluster]) for cluster in range(4)]
    assert [view.uri for view in views] == sheets(nearest, COLUMNS, MAX_BYTES)
    views = build_gallery(objects, labels_of(objects, np.arange(48) % 12, 12))
    assert [view.shown for view in views] == [1] * 8 + [0] * 4 and views[-1].uri is None


def test_gallery_without_true_classes(objects: Index) -> None:
    index = objects.with_labels(np.full(48, -1), [])
    (view,) = build_gallery(index, labels_of(index, np.zeros(48), 1))
    assert view.purity is None and view.classes == [] and view.uri
