"""Everything that was made, read once: what the sections of the report are written from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ssltransfer.artifacts.files import ArtifactError, read_json
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.artifacts.labels import Labels, read_labels
from ssltransfer.artifacts.metrics import Metrics, read_metrics
from ssltransfer.artifacts.workdir import run_info_file

Kind = Literal["learned", "random", "supervised"]


@dataclass(frozen=True)
class Made:
    """A named thing with a manifest.

    Attributes:
        name: as its folder is called; for features it is features/dataset.
        path: the manifest.
        content: of the manifest.
        run: of run.json beside it, None where that is missing.
    """

    stage: str
    name: str
    path: Path
    content: dict[str, Any]
    run: dict[str, Any] | None

    @property
    def spec(self) -> dict[str, Any]:
        """How it was declared, defaults left out."""
        spec: dict[str, Any] = self.content.get("spec", {})
        return spec

    @property
    def kind(self) -> Kind:
        """What a model is to a table: learned, or a control."""
        if self.spec.get("task", {}).get("name") == "random":
            return "random"
        return "supervised" if self.spec.get("method", {}).get("name") == "supervised" else "learned"

    @property
    def copy_of(self) -> str | None:
        """The pretext that it is a snapshot of."""
        task = self.spec.get("task", {})
        return str(task["source"]) if task.get("name") == "snapshot" else None

    def curve(self) -> list[dict[str, float]]:
        """Rows of curve.jsonl beside the manifest (or in its work directory); none where there is none."""
        places = (self.path.parent, self.path.parent / "work" / str(self.content.get("work", "")))
        for file in (place / "curve.jsonl" for place in places):
            if file.is_file():
                try:
                    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
                except json.JSONDecodeError:
                    raise ArtifactError(
                        f"{file}: not a learning curve; remove {self.path} and make it again."
                    ) from None
        return []


@dataclass(frozen=True)
class Images:
    """A dataset."""

    name: str
    index: Index
    run: dict[str, Any] | None


@dataclass(frozen=True)
class Labelled:
    """Pseudo-labels that a clustering gives a dataset."""

    cluster: str
    dataset: str
    labels: Labels
    run: dict[str, Any] | None

    @property
    def name(self) -> str:
        """cluster/dataset."""
        return f"{self.cluster}/{self.dataset}"


@dataclass(frozen=True)
class Measured:
    """Numbers of a model under an evaluation."""

    metrics: Metrics
    run: dict[str, Any] | None

    @property
    def name(self) -> str:
        """evaluation/model."""
        return f"{self.metrics.evaluation}/{self.metrics.model}"


@dataclass(frozen=True)
class Results:
    """All of it, each under its name."""

    datasets: dict[str, Images]
    models: dict[str, Made]
    features: dict[str, Made]
    clusters: dict[str, Made]
    labels: dict[str, Labelled]
    metrics: list[Measured] = field(default_factory=list)

    @property
    def evaluations(self) -> dict[str, list[Metrics]]:
        """Evaluation -> the metrics of its models, both in the order in which they were given."""
        order = {name: place for place, name in enumerate(self.models)}
        found: dict[str, list[Metrics]] = {}
        for measured in sorted(self.metrics, key=lambda m: order.get(m.metrics.model, len(order))):
            found.setdefault(measured.metrics.evaluation, []).append(measured.metrics)
        return {name: found[name] for name in dict.fromkeys(m.metrics.evaluation for m in self.metrics)}

    def kind(self, model: str) -> Kind:
        """What a model is to a table; one whose manifest was not given counts as learned."""
        return self.models[model].kind if model in self.models else "learned"

    def ordered_layers(self, metrics: Metrics) -> list[str]:
        """Layers that a measurement has values of, in the network's order (JSON keeps values by name)."""
        layers = metrics.details.get("layers")
        if not isinstance(layers, list):
            made = self.models.get(metrics.model)
            layers = made.content.get("layers", []) if made else []
        return [layer for layer in layers if layer in metrics.values]

    def runs(self) -> Iterator[tuple[str, str, dict[str, Any] | None]]:
        """(stage, name, run.json) of everything, in the order of the chain."""
        for images in self.datasets.values():
            yield "index", images.name, images.run
        for stage in ("pretext", "student"):
            if stage == "student":
                for made in (*self.features.values(), *self.clusters.values()):
                    yield made.stage, made.name, made.run
                for labelled in self.labels.values():
                    yield "label", labelled.name, labelled.run
            for made in self.models.values():
                if made.stage == stage:
                    yield stage, made.name, made.run
        for measured in self.metrics:
            yield "evaluate", measured.name, measured.run


def gather(
    indexes: list[Path],
    models: list[Path],
    features: list[Path],
    clusters: list[Path],
    labels: list[Path],
    metrics: list[Path],
) -> Results:
    """Read every artifact; names come from the paths, which are fixed (DESIGN: results column of the stage table).

    Raises:
        ArtifactError: one is missing, or is not what its place says.
    """
    datasets = {path.stem: Images(path.stem, read_index(path), _read_run(path)) for path in indexes}
    labelled = [Labelled(p.parent.name, p.stem, read_labels(p), _read_run(p)) for p in labels]
    return Results(
        datasets=datasets,
        models=_by_name(_made(path, path.parent.name, ("pretext", "student")) for path in models),
        features=_by_name(
            _made(path, f"{path.parent.parent.name}/{path.parent.name}", ("features",)) for path in features
        ),
        clusters=_by_name(_made(path, path.parent.name, ("cluster",)) for path in clusters),
        labels={entry.name: entry for entry in labelled},
        metrics=[Measured(read_metrics(path), _read_run(path)) for path in metrics],
    )


def _by_name(made: Iterable[Made]) -> dict[str, Made]:
    return {entry.name: entry for entry in made}


def _made(path: Path, name: str, stages: tuple[str, ...]) -> Made:
    content = read_json(path)
    if not isinstance(content, dict) or content.get("stage") not in stages:
        raise ArtifactError(f"{path}: not a manifest of {' or '.join(stages)}; give the right kind of file.")
    return Made(content["stage"], name, path, content, _read_run(path))


def _read_run(output: Path) -> dict[str, Any] | None:
    """Cost and versions of the run that wrote `output`; never worth ending the report."""
    try:
        content = read_json(run_info_file(output))
    except ArtifactError:
        return None
    return content if isinstance(content, dict) else None
