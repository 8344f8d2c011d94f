"""What every run left beside its output: cost, environment, specification and fingerprints."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssltransfer.report.load_results import Images, Made, Measured, Results

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
            run.get("images_per_second"),
            run.get("data_wait_fraction"),
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
        "index": [_images_spec(entry) for entry in results.datasets.values()],
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


def _images_spec(entry: Images) -> dict[str, Any]:
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
