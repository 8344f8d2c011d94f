"""A completed configuration, and the questions that the workflow asks of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ssltransfer.config.backbones import AnyBackbone
from ssltransfer.config.base import ConfigError, suggest
from ssltransfer.config.entities import Cluster, Evaluation, Features, Pretext, Report, Student
from ssltransfer.config.formats import AnyDataset
from ssltransfer.config.methods import ClusterClassification, Distillation
from ssltransfer.config.protocols import FeatureProtocol
from ssltransfer.config.tasks import Imported, RandomNetwork


@dataclass(frozen=True)
class ModelEntry:
    """Any backbone with weights, however it came about.

    Attributes:
        stage: which stage makes it, and so where it lies: {stage}/{name}/manifest.json.
        layers: the layers that it can be asked for.
    """

    name: str
    stage: Literal["pretext", "student"]
    spec: Pretext | Student

    @property
    def backbone(self) -> AnyBackbone:
        """Options of its backbone."""
        return self.spec.backbone

    @property
    def layers(self) -> tuple[str, ...]:
        """A pretext leaves convolutions; most students, a random and an imported network have fc layers too."""
        spec = self.spec
        full = (
            spec.method.is_self_contained
            if isinstance(spec, Student)
            else isinstance(spec.task, RandomNetwork | Imported)
        )
        return self.backbone.layers if full else self.backbone.base_layers


@dataclass(frozen=True)
class Config:
    """The completed configuration: declared things and those made by themselves (controls, features)."""

    results: str
    datasets: dict[str, AnyDataset]
    pretexts: dict[str, Pretext]
    features: dict[str, Features]
    clusters: dict[str, Cluster]
    students: dict[str, Student]
    evaluations: dict[str, Evaluation]
    report: Report
    derived: frozenset[str] = frozenset()
    rows: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def model(self, name: str) -> ModelEntry:
        """The pretext or student of that name."""
        if name in self.pretexts:
            return ModelEntry(name, "pretext", self.pretexts[name])
        if name in self.students:
            return ModelEntry(name, "student", self.students[name])
        known = [*self.pretexts, *self.students]
        raise ConfigError(f"there is no model {name!r}{suggest(name, known)}")

    def evaluated_features(self, evaluation: str, model: str) -> str:
        """Name of the features that a protocol on features reads of a model."""
        protocol = self.evaluations[evaluation].protocol
        assert isinstance(protocol, FeatureProtocol)
        return features_name(self.features, protocol_features(protocol, self.model(model)))

    def teacher_features_of(self, student: str) -> str | None:
        """Name of the features that a student reads instead of asking its teacher."""
        method = self.students[student].method
        if not isinstance(method, Distillation) or not method.precompute_teacher:
            return None
        return features_name(self.features, teacher_features(method, self.model(method.teacher)))

    def datasets_of_features(self, name: str) -> set[str]:
        """Datasets on which anything needs these features."""
        needed = {cluster.data for cluster in self.clusters.values() if cluster.features == name}
        needed |= {
            data
            for cluster, data in self.labels()
            if self.clusters[cluster].features == name and self.reads_features(cluster, data)
        }
        for student, spec in self.students.items():
            if self.teacher_features_of(student) == name:
                needed |= {data for data in (spec.data, spec.val) if data}
        for evaluation, models in self.rows.items():
            entry = self.evaluations[evaluation]
            if isinstance(entry.protocol, FeatureProtocol):
                for model in models:
                    if self.evaluated_features(evaluation, model) == name:
                        needed |= set(entry.datasets)
        return needed

    def reads_features(self, cluster: str, dataset: str) -> bool:
        """Whether a dataset is labelled from stored features, not while they are computed."""
        return self.clusters[cluster].store_features or dataset == self.clusters[cluster].data

    def labels(self) -> set[tuple[str, str]]:
        """(cluster, dataset) pairs that some student learns or is measured on, and each cluster's own data."""
        pairs = {(name, cluster.data) for name, cluster in self.clusters.items()}
        for student in self.students.values():
            if isinstance(student.method, ClusterClassification):
                pairs |= {(student.method.cluster, data) for data in (student.data, student.val) if data}
        return pairs


def features_name(declared: dict[str, Features], wanted: Features) -> str:
    """The declared name of features with this content, or one made of model, layer and pooling."""
    for name, entry in declared.items():
        if entry == wanted:
            return name
    pooled = f"-{wanted.pool.slug}" if wanted.pool else ""
    return f"{wanted.model}.{wanted.layer}{'-patches' if wanted.patches else ''}{pooled}"


def teacher_features(method: Distillation, teacher: ModelEntry) -> Features:
    """What a method that reads its teacher's features wants of it."""
    layer = method.teacher_layer or teacher.layers[-1]
    return Features(model=teacher.name, layer=layer, pool=method.teacher_pool)


def protocol_features(protocol: FeatureProtocol, model: ModelEntry) -> Features:
    """What a protocol on features wants of a model."""
    layer = protocol.layer or model.layers[-1]
    return Features(model=model.name, layer=layer, pool=protocol.pool, patches=protocol.patches)
