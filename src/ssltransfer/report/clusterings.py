"""Clusterings: curve, sizes, agreement with true classes, montages."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from ssltransfer.artifacts.index import Index
from ssltransfer.artifacts.manifest import ClusterManifest
from ssltransfer.config.entities import Report
from ssltransfer.data.rng import seed_of
from ssltransfer.report.load_results import ArtifactRecord, LabelRecord, Results
from ssltransfer.report.plots import Plots
from ssltransfer.report.thumbnails import strip, thumbnail_source


@dataclass(frozen=True)
class LabeledDataset:
    """How a level of a clustering divides a dataset.

    Attributes:
        sizes: int64 (number of clusters of the level,), images in each.
        purity, largest_class, nmi: purity and share of the largest class in %; None without true classes.
    """

    labels: LabelRecord
    sizes: np.ndarray
    purity: float | None = None
    largest_class: float | None = None
    nmi: float | None = None


@dataclass(frozen=True)
class Strip:
    """The images of one dataset nearest to a cluster's center; `classes` are its most frequent true classes."""

    dataset: str
    members: int
    shown: int
    classes: list[tuple[str, int]]
    uri: str | None


@dataclass(frozen=True)
class Clustering:
    """One clustering as the page shows it; `montage` holds (cluster, its strips)."""

    record: ArtifactRecord[ClusterManifest]
    sizes: np.ndarray
    plots: list[Markup]
    datasets: list[LabeledDataset]
    montage: list[tuple[int, list[Strip]]]


def clusterings(report: Report, results: Results, plots: Plots) -> Iterator[Clustering]:
    """All clusterings."""
    for record in results.clusters.values():
        own = record.content.spec.data
        labels = [entry for entry in results.labels.values() if entry.cluster == record.name]
        labels.sort(key=lambda entry: (entry.dataset != own, entry.dataset))
        sizes = np.asarray(record.content.sizes, np.int64)
        rows = record.content.curve()
        yield Clustering(
            record,
            sizes,
            plots.clustering(rows, sizes, record.content.points, record.name) if rows else [],
            [row for entry in labels for row in _labeled(entry, record.content, results)],
            _montage(report, results, record.name, sizes, labels),
        )


def _labeled(entry: LabelRecord, cluster: ClusterManifest, results: Results) -> Iterator[LabeledDataset]:
    """A dataset at every level, the lowest first."""
    dataset = results.datasets.get(entry.dataset)
    true = None
    if dataset is not None and entry.fits(dataset.content) and len(dataset.content.classes) > 1:
        true = dataset.content.labels
    levels = [entry.content.labels]
    for parents in cluster.parents:
        levels.append(parents[levels[-1]])
    for k, labels in zip((entry.content.k, *cluster.spec.levels), levels, strict=True):
        agreed = () if true is None else agreement(labels, true)
        yield LabeledDataset(entry, np.bincount(labels, minlength=k), *agreed)


def agreement(labels: np.ndarray, true: np.ndarray) -> tuple[float, float, float] | tuple[()]:
    """Purity and share of the largest class in %, and NMI, of clusters and classes (N,); empty without true classes.

    Images without a class (-1) do not count.
    """
    known = true >= 0
    true, labels = true[known], labels[known]
    if not len(true):
        return ()
    table = contingency_matrix(labels, true, sparse=True)
    purity = 100 * float(table.max(axis=1).sum()) / len(true)
    largest = 100 * float(np.bincount(true).max()) / len(true)
    return purity, largest, float(normalized_mutual_info_score(true, labels))


def _montage(
    report: Report, results: Results, name: str, sizes: np.ndarray, labels: list[LabelRecord]
) -> list[tuple[int, list[Strip]]]:
    """Some clusters, drawn by a fixed seed, with a strip of images for each dataset."""
    indexes = [
        (entry, results.datasets[entry.dataset].content) for entry in labels if entry.dataset in results.datasets
    ]
    indexes = [(entry, index) for entry, index in indexes if entry.fits(index)]
    filled = np.flatnonzero(sizes > 0).tolist() if indexes else []
    clusters = sorted(sorted(filled, key=lambda c: seed_of("montage", name, c))[: report.montage_clusters])
    return [
        (cluster, [_nearest(report.montage_images, index, entry, cluster) for entry, index in indexes])
        for cluster in clusters
    ]


def _nearest(num_images: int, index: Index, entry: LabelRecord, cluster: int) -> Strip:
    members = np.flatnonzero(entry.content.labels == cluster)
    nearest = members[np.argsort(entry.content.distances[members], kind="stable")][:num_images]
    classes = Counter(index.classes[c] for c in index.labels[members] if c >= 0).most_common(3)
    uri = strip([thumbnail_source(index, int(sample)) for sample in nearest]) if len(nearest) else None
    return Strip(entry.dataset, len(members), len(nearest), classes, uri)
