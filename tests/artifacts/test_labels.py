"""Pseudo-labels: read as written, and never used for other images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index, write_index
from ssltransfer.artifacts.labels import Labels, read_labeled_index, read_labels, write_labels


@pytest.fixture
def labels(index: Index) -> Labels:
    return Labels(
        paths=index.paths,
        labels=np.array([3, 0, 3], np.int32),
        distances=np.array([0.5, 1.25, 0.0], np.float32),
        k=5,
        index=index.fingerprint,
        cluster="c1",
    )


def test_labels_round_trip(tmp_path: Path, labels: Labels) -> None:
    write_labels(tmp_path / "a.parquet", labels)
    write_labels(tmp_path / "b.parquet", labels)
    read = read_labels(tmp_path / "a.parquet")
    assert (read.paths, read.k, read.index, read.cluster) == (labels.paths, 5, labels.index, "c1")
    assert np.array_equal(read.labels, labels.labels)
    assert np.array_equal(read.distances, labels.distances)
    assert read.labels.dtype == np.int32
    assert read.distances.dtype == np.float32
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_sizes_count_empty_clusters(labels: Labels) -> None:
    assert labels.sizes.tolist() == [1, 0, 0, 2, 0]


def test_labels_refuse_another_index(labels: Labels, index: Index) -> None:
    labels.check(index, Path("labels"))
    labels.check(replace(index, root=Path("/moved")), Path("labels"))
    for other in (
        replace(index, digests=["d1", "d2", "changed"]),
        replace(index, paths=["a/1.jpg", "a/2.jpg", "b/renamed.jpg"]),
        replace(index, labels=np.array([1, 0, 1], np.int32)),
    ):
        with pytest.raises(ArtifactError, match=r"x.parquet: these labels belong to another index .* run the label"):
            labels.check(other, Path("x.parquet"))


def test_read_labeled_index_replaces_labels_and_classes(tmp_path: Path, labels: Labels, index: Index) -> None:
    write_index(tmp_path / "i.parquet", index)
    write_labels(tmp_path / "l.parquet", labels)
    plain = read_labeled_index(tmp_path / "i.parquet")
    assert plain.labels.tolist() == index.labels.tolist() and plain.classes == index.classes
    found = read_labeled_index(tmp_path / "i.parquet", tmp_path / "l.parquet")
    assert found.labels.tolist() == [3, 0, 3] and found.labels.dtype == np.int32
    assert found.classes == ["0", "1", "2", "3", "4"] and found.paths == index.paths
    write_index(tmp_path / "other.parquet", replace(index, digests=["d1", "d2", "changed"]))
    with pytest.raises(ArtifactError, match="belong to another index"):
        read_labeled_index(tmp_path / "other.parquet", tmp_path / "l.parquet")


def test_read_labels_refuses_other_files(tmp_path: Path, labels: Labels, index: Index) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(ArtifactError, match="missing; run the label stage"):
        read_labels(path)
    write_labels(path, labels)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        ArtifactError, match="damaged, or not a valid file of labels; remove it and run the label stage"
    ):
        read_labels(path)
    write_index(path, index)
    with pytest.raises(ArtifactError, match="not a file of labels"):
        read_labels(path)


def test_write_labels_leaves_nothing_on_full_disk(small_disk: Path, labels: Labels) -> None:
    n = 300_000
    rng = np.random.default_rng(0)
    many = replace(
        labels,
        paths=[f"{place:x}" for place in rng.integers(0, 2**60, n)],
        labels=rng.integers(0, 5, n).astype(np.int32),
        distances=rng.random(n, np.float32),
    )
    with pytest.raises(ArtifactError, match="the disk is full"):
        write_labels(small_disk / "a.parquet", many)
    assert list(small_disk.iterdir()) == []
