"""Read all results once, as typed records."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.artifacts.labels import Labels, read_labels
from ssltransfer.artifacts.manifest import (
    ClusterManifest,
    FeaturesManifest,
    ModelManifest,
    RunInfo,
    read_manifest,
    read_run_info,
)
from ssltransfer.artifacts.metrics import Metrics, read_metrics
from ssltransfer.config.entities import Features, Student
from ssltransfer.config.methods import ClusterClassification, Distillation
from ssltransfer.config.tasks import ForeignWeights, RandomNetwork, Snapshot

T = TypeVar("T")
Kind = Literal["learned", "unranked", "random", "supervised"]
"""`unranked`: labels may have been used: imported weights, and students of imported or supervised teachers."""


@dataclass(frozen=True)
class ArtifactRecord(Generic[T]):
    """One result.

    Attributes:
        name: of its folder; features/dataset, cluster/dataset and evaluation/model where two names are needed.
        content: as read from disk.
        run: None if run.json is missing.
    """

    stage: str
    name: str
    content: T
    run: RunInfo | None


@dataclass(frozen=True)
class LabelRecord(ArtifactRecord[Labels]):
    """Pseudo-labels that a clustering gives a dataset."""

    cluster: str
    dataset: str

    def fits(self, index: Index) -> bool:
        """True if the labels belong to these images."""
        return self.content.index == index.fingerprint


@dataclass(frozen=True)
class Results:
    """All results by name."""

    datasets: dict[str, ArtifactRecord[Index]]
    models: dict[str, ArtifactRecord[ModelManifest]]
    features: dict[str, ArtifactRecord[FeaturesManifest]]
    clusters: dict[str, ArtifactRecord[ClusterManifest]]
    labels: dict[str, LabelRecord]
    metrics: Sequence[ArtifactRecord[Metrics]] = ()
    partial: bool = False  # results that the report names may be missing

    @property
    def evaluations(self) -> dict[str, list[Metrics]]:
        """Evaluation -> metrics of its models, in the order of `models`."""
        order = {name: position for position, name in enumerate(self.models)}
        found: dict[str, list[Metrics]] = {record.content.evaluation: [] for record in self.metrics}
        for record in sorted(self.metrics, key=lambda record: order.get(record.content.model, len(order))):
            found[record.content.evaluation].append(record.content)
        return found

    def kind(self, model: str) -> Kind:
        """Group of a model in tables; a model without a manifest counts as learned."""
        if model not in self.models:
            return "learned"
        spec = self.models[model].content.spec
        if isinstance(spec, Student):
            if spec.method.uses_ground_truth:
                return "supervised"
            teacher = self.teacher(spec)
            if any(features.file for features in self._teacher_features(spec)):
                return "unranked"
            kinds = {self.kind(one) for one in (teacher, *spec.method.further) if one}
            return "unranked" if kinds & {"unranked", "supervised"} else "learned"
        if isinstance(spec.task, ForeignWeights):
            return {None: "unranked", True: "supervised", False: "learned"}[spec.task.labels]  # type: ignore[return-value]
        if isinstance(spec.task, Snapshot):
            return self.kind(spec.task.source)
        return "random" if isinstance(spec.task, RandomNetwork) else "learned"

    def teacher(self, student: Student) -> str | None:
        """The model whose features or clusters the student learns, if its results are known."""
        if isinstance(student.method, Distillation):
            return student.method.teacher if student.method.teacher in self.models else None
        return next((features.model for features in self._teacher_features(student) if features.model), None)

    def _teacher_features(self, student: Student) -> Iterator[Features]:
        """Features that were clustered for a student, or that are named as its teacher."""
        method = student.method
        name = method.teacher if isinstance(method, Distillation) else None
        if isinstance(method, ClusterClassification) and method.cluster in self.clusters:
            name = self.clusters[method.cluster].content.spec.features
        yield from (record.content.spec for key, record in self.features.items() if key.startswith(f"{name}/"))

    def ordered_layers(self, metrics: Metrics) -> list[str]:
        """Layers with a value in `metrics`, in the network's order."""
        layers = metrics.known_details.layers
        if not layers and metrics.model in self.models:
            layers = self.models[metrics.model].content.layers
        return [layer for layer in layers if layer in metrics.values]

    def records(self) -> Iterator[ArtifactRecord[Any]]:
        """All records in the order of the stages."""
        models = list(self.models.values())
        yield from self.datasets.values()
        yield from (record for record in models if record.stage == "pretext")
        yield from self.features.values()
        yield from self.clusters.values()
        yield from self.labels.values()
        yield from (record for record in models if record.stage == "student")
        yield from self.metrics


def load_results(
    indexes: list[Path],
    models: list[Path],
    features: list[Path],
    clusters: list[Path],
    labels: list[Path],
    metrics: list[Path],
    *,
    partial: bool = False,
) -> Results:
    """Read every artifact; names come from the paths.

    Raises:
        ArtifactError: a file is missing or belongs to another stage.
    """
    measured = [read_metrics(path) for path in metrics]
    return Results(
        datasets={
            path.stem: ArtifactRecord("index", path.stem, read_index(path), read_run_info(path)) for path in indexes
        },
        models=_manifests(models, ModelManifest, lambda path: path.parent.name),
        features=_manifests(features, FeaturesManifest, lambda path: f"{path.parent.parent.name}/{path.parent.name}"),
        clusters=_manifests(clusters, ClusterManifest, lambda path: path.parent.name),
        labels={record.name: record for record in map(_labels, labels)},
        metrics=[
            ArtifactRecord("evaluate", f"{one.evaluation}/{one.model}", one, read_run_info(path))
            for path, one in zip(metrics, measured, strict=True)
        ],
        partial=partial,
    )


M = TypeVar("M", ModelManifest, FeaturesManifest, ClusterManifest)


def _manifests(paths: list[Path], kind: type[M], name_of: Callable[[Path], str]) -> dict[str, ArtifactRecord[M]]:
    manifests = {name_of(path): read_manifest(path, kind) for path in paths}
    return {
        name: ArtifactRecord(manifest.stage, name, manifest, read_run_info(manifest.path))
        for name, manifest in manifests.items()
    }


def _labels(path: Path) -> LabelRecord:
    cluster, dataset = path.parent.name, path.stem
    return LabelRecord("label", f"{cluster}/{dataset}", read_labels(path), read_run_info(path), cluster, dataset)
