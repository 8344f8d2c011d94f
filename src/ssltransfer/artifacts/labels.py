"""Pseudo-labels of a dataset: one parquet row per image."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssltransfer.artifacts.files import ArtifactError, atomic_write
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.artifacts.strings import Strings
from ssltransfer.artifacts.tables import read_table


@dataclass(frozen=True)
class Labels:
    """The nearest centroid of each image.

    Attributes:
        paths: relative path of each image, in index order.
        labels: int32 (N,), cluster of each image.
        distances: float32 (N,), squared Euclidean distance to its centroid.
        k: number of clusters, including empty ones.
        index: fingerprint of the index of the images.
        cluster: digest of the clustering's manifest.
    """

    paths: Sequence[str]
    labels: np.ndarray
    distances: np.ndarray
    k: int
    index: str
    cluster: str

    @property
    def sizes(self) -> np.ndarray:
        """int64 (k,), number of images in each cluster."""
        return np.bincount(self.labels, minlength=self.k)

    def check(self, index: Index, path: Path) -> None:
        """Verify that the labels, which were read from `path`, belong to an index.

        Raises:
            ArtifactError: they were computed for other images.
        """
        if self.index != index.fingerprint:
            raise ArtifactError(
                f"{path}: these labels belong to another index ({self.index[:8]}, not {index.fingerprint[:8]}): "
                f"images were added, removed or changed; run the label stage again."
            )


def write_labels(path: Path, labels: Labels) -> None:
    """Write labels, all or nothing."""
    table = pa.table(
        {
            "sample": pa.array(range(len(labels.paths)), pa.int32()),
            "path": pa.array(labels.paths, pa.string()),
            "label": pa.array(labels.labels, pa.int32()),
            "distance": pa.array(labels.distances, pa.float32()),
        }
    )
    about = {"k": labels.k, "index": labels.index, "cluster": labels.cluster}
    with atomic_write(path) as beside:
        about_text = {"ssltransfer": json.dumps(about, sort_keys=True)}
        pq.write_table(table.replace_schema_metadata(about_text), beside, write_page_checksum=True)


def read_labels(path: Path) -> Labels:
    """Read labels.

    Raises:
        ArtifactError: missing, damaged, or not a file of labels.
    """
    table, about = read_table(path, "file of labels", "label")
    try:
        return Labels(
            paths=Strings(table["path"]),
            labels=table["label"].to_numpy(),
            distances=table["distance"].to_numpy(),
            **about,
        )
    except (KeyError, TypeError):
        raise ArtifactError(f"{path}: not a file of labels; remove it and run the label stage again.") from None


def read_labeled_index(path: Path, labels: Path | None = None) -> Index:
    """Read an index, optionally with pseudo-labels instead of its own labels; cluster i is class "i".

    Raises:
        ArtifactError: a file is missing or damaged, or the labels belong to other images.
    """
    index = read_index(path)
    if labels is None:
        return index
    found = read_labels(labels)
    found.check(index, labels)
    return index.with_labels(found.labels, [str(cluster) for cluster in range(found.k)])
