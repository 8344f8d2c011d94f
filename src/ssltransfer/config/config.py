"""The completed configuration, and the queries of the workflow."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ssltransfer.config.backbones import AnyBackbone
from ssltransfer.config.base import ConfigError, suggest
from ssltransfer.config.entities import Cluster, Evaluation, Export, Features, Pretext, Report, Student
from ssltransfer.config.formats import AnyDataset
from ssltransfer.config.methods import ClusterClassification, Distillation
from ssltransfer.config.protocols import FeatureProtocol
from ssltransfer.config.tasks import ForeignWeights, Snapshot


@dataclass(frozen=True)
class ModelEntry:
    """A pretext or a student: any backbone with weights.

    Attributes:
        stage: the stage that makes it; its manifest is {stage}/{name}/manifest.json.
    """

    name: str
    stage: Literal["pretext", "student"]
    spec: Pretext | Student

    @property
    def backbone(self) -> AnyBackbone:
        """Options of the backbone."""
        return self.spec.backbone

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that the model has weights for."""
        return self.backbone.layers if self.has_top else self.backbone.base_layers

    @property
    def has_top(self) -> bool:
        """Whether the model has weights for the fully-connected layers."""
        spec = self.spec
        return spec.method.is_self_contained if isinstance(spec, Student) else spec.task.exports_fc


@dataclass(frozen=True)
class Config:
    """The completed configuration.

    Attributes:
        derived: names of the entries that were added: baselines, snapshots and features.
        rows: evaluation -> the models that it measures.
        table: title of the only table of the report, if the rest of the configuration is left out (`only_table`).
    """

    results: str
    datasets: dict[str, AnyDataset]
    pretexts: dict[str, Pretext]
    features: dict[str, Features]
    clusters: dict[str, Cluster]
    students: dict[str, Student]
    evaluations: dict[str, Evaluation]
    report: Report
    exports: dict[str, Export] = field(default_factory=dict)
    derived: frozenset[str] = frozenset()
    rows: dict[str, tuple[str, ...]] = field(default_factory=dict)
    table: str | None = None

    @property
    def models(self) -> dict[str, Pretext | Student]:
        """All pretexts and students by name."""
        return {**self.pretexts, **self.students}

    @property
    def baselines(self) -> set[str]:
        """Models that were added as baselines."""
        snapshots = {name for name, pretext in self.pretexts.items() if isinstance(pretext.task, Snapshot)}
        return (self.models.keys() & self.derived) - snapshots

    def model(self, name: str) -> ModelEntry:
        """The pretext or student of that name.

        Raises:
            ConfigError: no model has this name.
        """
        if name in self.pretexts:
            return ModelEntry(name, "pretext", self.pretexts[name])
        if name in self.students:
            return ModelEntry(name, "student", self.students[name])
        raise ConfigError(f"no model is called {name!r}{suggest(name, self.models)}")

    def teacher_of(self, model: str) -> str | None:
        """Name of the model that a student learns from, directly or through clusters; None for other models."""
        method = self.students[model].method if model in self.students else None
        if isinstance(method, ClusterClassification):
            return self.features[self.clusters[method.cluster].features].model or None
        return method.teacher if isinstance(method, Distillation) and method.teacher in self.models else None

    def sources_of(self, model: str) -> list[str]:
        """Models that must be made before a model: teacher, initial weights, the training of a snapshot."""
        spec = self.models[model]
        source = getattr(spec.task, "source", None) if isinstance(spec, Pretext) else None
        further = spec.method.further if isinstance(spec, Student) else ()
        return [name for name in (self.teacher_of(model), *further, spec.init, source) if name is not None]

    def curator_of(self, dataset: str) -> Cluster | None:
        """The clustering that a curated dataset is chosen from; None for other datasets."""
        curate = self.datasets[dataset].curate
        return self.clusters[curate.cluster] if curate else None

    def priority(self, model: str) -> int:
        """Priority of a model's jobs: imports run first, because a wrong file ends the run, and baselines last."""
        imported = model in self.pretexts and isinstance(self.pretexts[model].task, ForeignWeights)
        return 1 if imported else -1 if model in self.baselines else 0

    def evaluated_features(self, evaluation: str, model: str) -> str:
        """Name of the features of a model that a protocol on features reads."""
        protocol = self.evaluations[evaluation].protocol
        assert isinstance(protocol, FeatureProtocol)
        return features_name(self.features, protocol_features(protocol, self.model(model)))

    def teacher_features_of(self, student: str) -> str | None:
        """Name of the precomputed teacher features that a student reads; None if the teacher runs during training."""
        method = self.students[student].method
        if not isinstance(method, Distillation) or not method.precompute_teacher:
            return None
        if self.has_file(method.teacher):
            return method.teacher
        return features_name(self.features, teacher_features(method, self.model(method.teacher)))

    def has_file(self, features: str) -> bool:
        """Whether this is the name of features that were made elsewhere."""
        return features in self.features and self.features[features].file is not None

    def datasets_of_features(self, name: str) -> set[str]:
        """Datasets for which these features are needed."""
        return {dataset for features, dataset in self._feature_uses() if features == name}

    def _feature_uses(self) -> Iterator[tuple[str, str]]:
        """Pairs (features, dataset) that are read."""
        for name, data in self.labels():
            if self.reads_features(name, data):
                yield self.clusters[name].features, data
        for name, student in self.students.items():
            if (features := self.teacher_features_of(name)) is not None:
                yield from ((features, data) for data in student.datasets)
        for name, models in self.rows.items():
            evaluation = self.evaluations[name]
            if isinstance(evaluation.protocol, FeatureProtocol):
                for model in models:
                    features = self.evaluated_features(name, model)
                    yield from ((features, data) for data in evaluation.datasets)

    def reads_features(self, cluster: str, dataset: str) -> bool:
        """Whether labels of a dataset are read from stored features instead of computed on the fly."""
        entry = self.clusters[cluster]
        return entry.store_features or dataset == entry.data or self.has_file(entry.features)

    def labels(self) -> set[tuple[str, str]]:
        """Pairs (cluster, dataset) of pseudo-labels: what students learn, and each cluster's own dataset."""
        pairs = {(name, cluster.data) for name, cluster in self.clusters.items()}
        for student in self.students.values():
            if isinstance(student.method, ClusterClassification):
                pairs |= {(student.method.cluster, data) for data in student.datasets}
        return pairs


def features_name(declared: dict[str, Features], features: Features) -> str:
    """The name under which equal features are declared, else a name made of model, layer and pooling."""
    for name, entry in declared.items():
        if entry == features:
            return name
    pool = f"-{features.pool.slug}" if features.pool else ""
    return f"{features.model}.{features.layer}{'-patches' if features.patches else ''}{pool}"


def teacher_features(method: Distillation, teacher: ModelEntry) -> Features:
    """The features of its teacher that a distillation reads."""
    layer = method.teacher_layer or teacher.layers[-1]
    return Features(model=teacher.name, layer=layer, pool=method.teacher_pool)


def protocol_features(protocol: FeatureProtocol, model: ModelEntry) -> Features:
    """The features of a model that a protocol reads."""
    layer = protocol.layer or model.layers[-1]
    return Features(model=model.name, layer=layer, pool=protocol.pool, patches=protocol.patches)
