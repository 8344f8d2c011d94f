"""What each section of the page shows, as plain values for the template."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from ssltransfer.artefacts.metrics import Metrics
from ssltransfer.config.entities import Report
from ssltransfer.data.draws import seed_of
from ssltransfer.stages.report.details import extremes, neighbours, other, per_class
from ssltransfer.stages.report.gather import Labelled, Made, Measured, Pictures, Results
from ssltransfer.stages.report.plots import Plots
from ssltransfer.stages.report.thumbs import filters, sample_of, strip

STRIP = 12  # thumbnails of a dataset
_ENVIRONMENT = (
    "ssltransfer",
    "python",
    "torch",
    "torchvision",
    "numpy",
    "zarr",
    "snakemake",
    "system",
    "host",
    "device",
)


def curves(results: Results, plots: Plots) -> Iterator[dict[str, Any]]:
    """Learning curves of every model that was trained, beside the guess."""
    for made in results.models.values():
        rows = made.curve()
        guess = made.content.get("summary", {}).get("guess")
        if rows and guess is not None:
            yield {
                "made": made,
                "plots": plots.learning(rows, guess, made.name),
                "last": made.content["summary"],
                "steps": int(rows[-1].get("step", len(rows))),
            }


def layer_curves(results: Results, plots: Plots) -> Iterator[dict[str, Any]]:
    """Accuracy by layer of every evaluation that probes several layers."""
    for name, measured in results.evaluations.items():
        lines = []
        for metrics in measured:
            layers = results.ordered_layers(metrics)
            if len(layers) > 1:
                means = [metrics.mean(layer) for layer in layers]
                lines.append((metrics.model, results.kind(metrics.model), layers, means))
        if lines:
            longest = max((line[2] for line in lines), key=len)
            rows = [(model, kind, dict(zip(layers, values, strict=True))) for model, kind, layers, values in lines]
            yield {
                "evaluation": name,
                "metrics": measured[0],
                "plot": plots.layers(lines, measured[0].unit, f"Accuracy by layer under {name}"),
                "layers": longest,
                "rows": rows,
            }


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
            "datasets": [_labelled(report, results, entry) for entry in mine],
            "montage": _montage(report, results, made.name, sizes, mine),
        }


def _sizes(made: Made, labelled: list[Labelled]) -> np.ndarray:
    if "sizes" in made.content:
        return np.asarray(made.content["sizes"], np.int64)
    own = [entry for entry in labelled if entry.dataset == made.spec.get("data")]
    return own[0].labels.sizes if own else np.zeros(0, np.int64)


def _labelled(report: Report, results: Results, entry: Labelled) -> dict[str, Any]:
    """How a clustering divides a dataset; purity and NMI against true classes where there are any."""
    found: dict[str, Any] = {"entry": entry, "used": int((entry.labels.sizes > 0).sum())}
    pictures = results.datasets.get(entry.dataset)
    if pictures is None or entry.labels.index != pictures.index.fingerprint:
        return found
    true = pictures.index.labels
    known = true >= 0
    if len(pictures.index.classes) > 1 and known.any():
        table = contingency_matrix(entry.labels.labels[known], true[known], sparse=True)
        found["purity"] = 100 * float(table.max(axis=1).sum()) / int(known.sum())
        found["largest"] = 100 * float(np.bincount(true[known]).max()) / int(known.sum())
        found["nmi"] = float(normalized_mutual_info_score(true[known], entry.labels.labels[known]))
    return found


def _montage(
    report: Report, results: Results, name: str, sizes: np.ndarray, labelled: list[Labelled]
) -> list[dict[str, Any]]:
    """The pictures nearest to the centre of some clusters, each dataset a strip."""
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


def _fits(entry: Labelled, pictures: Pictures) -> bool:
    return entry.labels.index == pictures.index.fingerprint


def _nearest(report: Report, pictures: Pictures, entry: Labelled, cluster: int) -> dict[str, Any]:
    members = np.flatnonzero(entry.labels.labels == cluster)
    nearest = members[np.argsort(entry.labels.distances[members], kind="stable")][: report.montage_pictures]
    classes = Counter(pictures.index.classes[c] for c in pictures.index.labels[members] if c >= 0)
    return {
        "dataset": entry.dataset,
        "members": len(members),
        "shown": len(nearest),
        "classes": classes.most_common(3),
        "uri": strip([pictures.index.path(int(sample)) for sample in nearest]) if len(nearest) else None,
    }


def first_filters(results: Results) -> list[tuple[Made, str]]:
    """Every model that has a first convolution, with its grid of kernels."""
    grids = ((made, filters(made.path.parent / "trunk.safetensors")) for made in results.models.values())
    return [(made, grid) for made, grid in grids if grid]


def evaluation_details(results: Results, plots: Plots) -> Iterator[dict[str, Any]]:
    """What each protocol left in `details`: values of classes, matrices, neighbours, and whatever else is short."""
    for name, measured in results.evaluations.items():
        yield {
            "name": name,
            "first": measured[0],
            "measured": measured,
            "classes": per_class(measured),
            "models": [_details(results, metrics, plots) for metrics in measured],
        }


def _details(results: Results, metrics: Metrics, plots: Plots) -> dict[str, Any]:
    matrix = metrics.details.get("confusion")
    drawn: Markup | None = None
    if isinstance(matrix, list) and matrix and isinstance(matrix[0], list):
        drawn = plots.matrix(np.asarray(matrix, float), f"Confusion matrix of {metrics.model}")
    return {
        "metrics": metrics,
        "kind": results.kind(metrics.model),
        "matrix": drawn,
        "extremes": extremes(metrics),
        "neighbours": neighbours(results, metrics),
        "other": other(metrics),
    }


def datasets(results: Results) -> Iterator[dict[str, Any]]:
    """Counts, reasons for leaving pictures out, and a strip of thumbnails of every dataset."""
    for entry in results.datasets.values():
        index = entry.index
        sample = sample_of(index, STRIP)
        per_class_counts = np.bincount(index.labels[index.labels >= 0], minlength=len(index.classes))
        if index.presence is not None:
            per_class_counts = (index.presence == 1).sum(0)
        yield {
            "entry": entry,
            "n": len(index),
            "doubled": len(index) - len(set(index.digests)),
            "reasons": Counter(_reason(text) for text in index.left_out.values()).most_common(),
            "left_out": sorted(index.left_out.items())[:20],
            "smallest": index.sizes.min(0).tolist() if len(index) else None,
            "largest": index.sizes.max(0).tolist() if len(index) else None,
            "class_counts": (int(per_class_counts.min()), int(per_class_counts.max())) if index.classes else None,
            "uri": strip([index.path(i) for i in sample]) if sample else None,
            "shown": len(sample),
        }


def _reason(text: str) -> str:
    """A reason without the particulars that differ from file to file."""
    return text.partition(":")[0].partition(" (")[0]


@dataclass(frozen=True)
class Cost:
    """What one run took."""

    stage: str
    name: str
    seconds: float
    memory: int | None
    rate: float | None
    waiting: float | None
    device: str | None


@dataclass(frozen=True)
class Costs:
    """Each run's cost in the order of the chain, and how many of each stage left no record."""

    rows: list[Cost]
    unknown: dict[str, int]

    @property
    def by_stage(self) -> dict[str, float]:
        """Seconds of each stage."""
        found: dict[str, float] = {}
        for row in self.rows:
            found[row.stage] = found.get(row.stage, 0.0) + row.seconds
        return found

    @property
    def memory(self) -> int:
        """The largest peak, in MB."""
        return max((row.memory or 0 for row in self.rows), default=0)


def costs(results: Results) -> Costs:
    """From run.json of every run."""
    rows = [
        Cost(
            stage,
            name,
            float(run.get("seconds", 0.0)),
            run.get("peak_memory_mb"),
            run.get("pictures_per_second"),
            run.get("share_waiting_for_data"),
            run.get("device"),
        )
        for stage, name, run in results.runs()
        if run is not None
    ]
    return Costs(rows, Counter(stage for stage, _, run in results.runs() if run is None))


def environment(results: Results) -> list[tuple[str, list[tuple[str, int]]]]:
    """Versions and machines, each value with the number of runs that report it."""
    runs = [run for _, _, run in results.runs() if run]
    found = []
    for key in _ENVIRONMENT:
        values = Counter(str(run[key]) for run in runs if key in run)
        if values:
            found.append((key, sorted(values.items())))
    return found


def specs(results: Results) -> list[tuple[str, list[dict[str, Any]]]]:
    """Every named thing as it was declared, with the fingerprints of what it is and was made of."""
    models = results.models.values()
    groups = {
        "index": [_pictures_spec(entry) for entry in results.datasets.values()],
        "pretext": [_made_spec(made) for made in models if made.stage == "pretext"],
        "features": [_made_spec(made) for made in results.features.values()],
        "cluster": [_made_spec(made) for made in results.clusters.values()],
        "student": [_made_spec(made) for made in models if made.stage == "student"],
        "evaluate": [_measured_spec(entry) for entry in results.metrics],
    }
    seen: set[str] = set()
    for entry in groups["features"]:
        # One anchor for features of several datasets: they share a name and a spec.
        plain = entry["name"].partition("/")[0]
        entry["first"] = plain not in seen
        seen.add(plain)
    return [(stage, entries) for stage, entries in groups.items() if entries]


def _entry(name: str, spec: Any, prints: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in prints.items() if value}
    return {"name": name, "spec": _json(spec), "prints": shown}


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)


def _pictures_spec(entry: Pictures) -> dict[str, Any]:
    return _entry(entry.name, entry.index.spec, {"index": entry.index.fingerprint})


def _made_spec(made: Made) -> dict[str, Any]:
    prints = {
        key: made.content[key] for key in ("weights", "centroids", "index", "model", "work") if key in made.content
    }
    inputs = {f"input {role}": ", ".join(digests) for role, digests in made.content.get("inputs", {}).items()}
    return _entry(made.name, made.spec, prints | inputs)


def _measured_spec(entry: Measured) -> dict[str, Any]:
    metrics = entry.metrics
    prints = {f"input {role}": ", ".join(map(str, digests)) for role, digests in metrics.inputs.items()}
    return _entry(
        entry.name, {"protocol": metrics.protocol, "seeds": metrics.seeds, "datasets": metrics.datasets}, prints
    )
