"""Clusterings of the same features side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssltransfer.artifacts.index import Index
from ssltransfer.artifacts.labels import Labels
from ssltransfer.artifacts.manifest import ClusterManifest
from ssltransfer.protocols.cluster_quality import silhouette
from ssltransfer.report.clusterings import agreement


@dataclass(frozen=True)
class ClusteringRow:
    """A clustering and how it divides one dataset.

    Attributes:
        sizes: int64 (k,), number of images of the dataset in each cluster.
        purity, nmi: of clusters and true classes, purity in %; None without true classes.
        silhouette: mean over the drawn images; None with fewer than two clusters among them.
    """

    name: str
    manifest: ClusterManifest
    labels: Labels
    sizes: np.ndarray
    purity: float | None
    nmi: float | None
    silhouette: float | None


def clustering_rows(
    found: Sequence[tuple[str, ClusterManifest, Labels]], index: Index, samples: np.ndarray, features: np.ndarray
) -> list[ClusteringRow]:
    """A row for each clustering, by k. `features` (n, D) are those of the drawn images `samples` (n,)."""
    rows = []
    for name, manifest, labels in found:
        purity, _, nmi = agreement(labels.labels, index.labels) or (None, None, None)
        compact = silhouette(features, labels.labels[samples], normalize=manifest.spec.normalizes)
        rows.append(ClusteringRow(name, manifest, labels, labels.sizes, purity, nmi, compact))
    return sorted(rows, key=lambda row: (len(row.sizes), row.name))
