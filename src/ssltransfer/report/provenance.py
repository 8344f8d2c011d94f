"""Cost, environment, specifications and fingerprints of every run."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssltransfer.artifacts.index import Index
from ssltransfer.artifacts.manifest import ClusterManifest, Manifest, ModelManifest, RunInfo
from ssltransfer.artifacts.metrics import Metrics
from ssltransfer.report.load_results import ArtifactRecord, Results
from ssltransfer.report.text import anchor

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
class RunCost:
    """Cost of all runs.

    Attributes:
        rows: (stage, name, run) in the order of the stages.
        missing: stage -> number of results without run.json.
    """

    rows: list[tuple[str, str, RunInfo]]
    missing: dict[str, int]

    @property
    def by_stage(self) -> dict[str, float]:
        """Stage -> seconds."""
        seconds: dict[str, float] = {}
        for stage, _, run in self.rows:
            seconds[stage] = seconds.get(stage, 0.0) + run.seconds
        return seconds

    @property
    def peak_memory_mb(self) -> int:
        """The largest peak of all runs."""
        return max((run.peak_memory_mb or 0 for _, _, run in self.rows), default=0)


def run_cost(results: Results) -> RunCost:
    """Cost of every result."""
    rows = [(record.stage, record.name, record.run) for record in results.records() if record.run]
    return RunCost(rows, Counter(record.stage for record in results.records() if record.run is None))


def environment(results: Results) -> list[tuple[str, list[tuple[str, int]]]]:
    """Versions and machines: (key, [(value, number of runs)])."""
    runs = [record.run.model_dump(exclude_none=True) for record in results.records() if record.run]
    counts = {key: Counter(str(run[key]) for run in runs if key in run) for key in _ENVIRONMENT}
    return [(key, sorted(values.items())) for key, values in counts.items() if values]


@dataclass(frozen=True)
class SpecEntry:
    """The specification of one result; `anchor` is None where another section has the link target."""

    name: str
    anchor: str | None
    spec: str
    fingerprints: Mapping[str, str]


def specs(results: Results) -> dict[str, list[SpecEntry]]:
    """Stage -> specifications, without those of labels, which have none."""
    stages: dict[str, list[SpecEntry]] = {}
    anchors: set[str] = set()
    for record in results.records():
        if record.stage == "label":
            continue
        target = None
        if record.stage in ("pretext", "student", "features"):
            # Features of several datasets share a name, and so a link target.
            target = anchor(record.stage, record.name.partition("/")[0])
            target = None if target in anchors else target
        anchors.add(target or "")
        spec, fingerprints = _spec(record)
        text = json.dumps(spec, indent=1, sort_keys=True, ensure_ascii=False)
        stages.setdefault(record.stage, []).append(SpecEntry(record.name, target, text, fingerprints))
    return stages


def _spec(record: ArtifactRecord[Any]) -> tuple[Any, dict[str, str]]:
    content = record.content
    if isinstance(content, Index):
        return content.spec, {"index": content.fingerprint}
    if isinstance(content, Metrics):
        datasets = {role: vars(dataset) for role, dataset in content.datasets.items()}
        spec = {"protocol": content.protocol, "seeds": content.seeds, "datasets": datasets}
        return spec, _inputs(content.inputs)
    assert isinstance(content, Manifest)
    keys = ("weights",) if isinstance(content, ModelManifest) else ("index", "model")
    if isinstance(content, ClusterManifest):
        keys = ("centroids", *keys)
    prints = {key: str(getattr(content, key)) for key in (*keys, "work")}
    return json.loads(content.spec.canonical()), {k: v for k, v in prints.items() if v} | _inputs(content.inputs)


def _inputs(inputs: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {f"input {role}": ", ".join(digests) for role, digests in inputs.items()}
