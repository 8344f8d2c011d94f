"""Clusterings as the page shows them: curve, sizes, agreement with true classes, montages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from ssltransfer.config.entities import Report
from ssltransfer.data.rng import seed_of
from ssltransfer.report.load_results import Images, Labelled, Made, Results
from ssltransfer.report.plots import Plots
from ssltransfer.report.thumbnails import shown, strip


def clusterings(report: Report, results: Results, plots: Plots) -> Iterator[dict[str, Any]]:
    """Curve, sizes and montages of every clustering."""
    for made in results.clusters.values():
        mine = [entry for entry in results.labels.values() if entry.cluster == made.name]
        sizes = _sizes(made, mine)
        points = int(made.content.get("points", sizes.sum()))
        rows = [row for row in made.curve() if {"iteration", "objective", "moved"} <= row.keys()]
        own = made.spec.get("data")
        mine.sort(key=lambda entry: (entry.dataset != own, entry.dataset))
        yield {
            "made": made,
            "k": len(sizes),
            "points": points,
            "sizes": sizes,
            "empty": int((sizes == 0).sum()),
            "median": float(np.median(sizes)) if len(sizes) else 0.0,
            "stopped": made.content.get("stopped"),
            "iterations": made.content.get("iterations", len(rows)),
            "plots": plots.clustering(rows, sizes, points, made.name) if rows and points else [],
            "datasets": [_labelled(results, entry) for entry in mine],
            "montage": _montage(report, results, made.name, sizes, mine),
        }


def _sizes(made: Made, labelled: list[Labelled]) -> np.ndarray:
    if "sizes" in made.content:
        return np.asarray(made.content["sizes"], np.int64)
    own = [entry for entry in labelled if entry.dataset == made.spec.get("data")]
    return own[0].labels.sizes if own else np.zeros(0, np.int64)


def _labelled(results: Results, entry: Labelled) -> dict[str, Any]:
    """How a clustering divides a dataset; purity and NMI against true classes where there are any."""
    found: dict[str, Any] = {"entry": entry, "used": int((entry.labels.sizes > 0).sum())}
    images = results.datasets.get(entry.dataset)
    if images is None or entry.labels.index != images.index.fingerprint:
        return found
    true = images.index.labels
    known = true >= 0
    if len(images.index.classes) > 1 and known.any():
        table = contingency_matrix(entry.labels.labels[known], true[known], sparse=True)
        found["purity"] = 100 * float(table.max(axis=1).sum()) / int(known.sum())
        found["largest"] = 100 * float(np.bincount(true[known]).max()) / int(known.sum())
        found["nmi"] = float(normalized_mutual_info_score(true[known], entry.labels.labels[known]))
    return found


def _montage(
    report: Report, results: Results, name: str, sizes: np.ndarray, labelled: list[Labelled]
) -> list[dict[str, Any]]:
    """The images nearest to the center of some clusters, each dataset a strip."""
    drawable = [e for e in labelled if e.dataset in results.datasets and _fits(e, results.datasets[e.dataset])]
    filled = np.flatnonzero(sizes > 0).tolist()
    drawn = sorted(sorted(filled, key=lambda c: seed_of("montage", name, c))[: report.montage_clusters])
    return [
        {
            "cluster": cluster,
            "size": int(sizes[cluster]),
            "strips": [_nearest(report, results.datasets[e.dataset], e, cluster) for e in drawable],
        }
        for cluster in (drawn if drawable else [])
    ]


def _fits(entry: Labelled, images: Images) -> bool:
    return entry.labels.index == images.index.fingerprint


def _nearest(report: Report, images: Images, entry: Labelled, cluster: int) -> dict[str, Any]:
    members = np.flatnonzero(entry.labels.labels == cluster)
    nearest = members[np.argsort(entry.labels.distances[members], kind="stable")][: report.montage_images]
    classes = Counter(images.index.classes[c] for c in images.index.labels[members] if c >= 0)
    return {
        "dataset": entry.dataset,
        "members": len(members),
        "shown": len(nearest),
        "classes": classes.most_common(3),
        "uri": strip([shown(images.index, int(sample)) for sample in nearest]) if len(nearest) else None,
    }
