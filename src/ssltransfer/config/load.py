"""A configuration file read, checked and completed: what is named, what hangs on what, and what is made by itself."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError

from ssltransfer.config.base import ConfigError, explain, nearest
from ssltransfer.config.entities import (
    Cluster,
    Document,
    Evaluation,
    Features,
    Pretext,
    Report,
    Student,
)
from ssltransfer.config.formats import FORMATS, AnyDataset
from ssltransfer.config.methods import METHODS, ClusterClassification, Supervised
from ssltransfer.config.protocols import PROTOCOLS, FeatureProtocol, LinearLayers, Pool
from ssltransfer.config.schedule import Schedule
from ssltransfer.config.sweeps import expand
from ssltransfer.config.tasks import TASKS, Imported, RandomNetwork
from ssltransfer.config.trunks import TRUNKS, AnyTrunk

SECTIONS = ("datasets", "pretexts", "features", "clusters", "students", "evaluations")

# Names of options and of nested specs, so that an unknown key is answered with the keys of the right class.
_CLASSES: dict[str, type[BaseModel]] = {
    **{str(kind.model_fields["format"].default): kind for kind in FORMATS},
    **{str(kind.model_fields["name"].default): kind for kind in (*TRUNKS, *TASKS, *METHODS, *PROTOCOLS)},
    "Document": Document,
}


@dataclass(frozen=True)
class Model:
    """Any trunk with weights, however it came about.

    Attributes:
        stage: which stage makes it, and so where it lies: {stage}/{name}/manifest.json.
        layers: the layers that it can be asked for.
    """

    name: str
    stage: Literal["pretext", "student"]
    entity: Pretext | Student

    @property
    def trunk(self) -> AnyTrunk:
        """Options of its trunk."""
        return self.entity.trunk

    @property
    def layers(self) -> tuple[str, ...]:
        """A pretext leaves convolutions; a student, a random and an imported network have fc layers too."""
        full = isinstance(self.entity, Student) or isinstance(self.entity.task, RandomNetwork | Imported)
        return self.trunk.layers if full else self.trunk.convolutions


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

    def model(self, name: str) -> Model:
        """The pretext or student of that name."""
        if name in self.pretexts:
            return Model(name, "pretext", self.pretexts[name])
        if name in self.students:
            return Model(name, "student", self.students[name])
        known = [*self.pretexts, *self.students]
        raise ConfigError(f"there is no model {name!r}{nearest(name, known)}")

    def evaluated_features(self, evaluation: str, model: str) -> str:
        """Name of the features that a protocol on features reads of a model."""
        protocol = self.evaluations[evaluation].protocol
        assert isinstance(protocol, FeatureProtocol)
        return self.features_name(_protocol_features(protocol, self.model(model)))

    def features_name(self, wanted: Features) -> str:
        """The declared name of features with this content, or the one made of model, layer and pooling."""
        return _features_name(self.features, wanted)

    def datasets_of_features(self, name: str) -> set[str]:
        """Datasets on which anything needs these features."""
        needed = {cluster.data for cluster in self.clusters.values() if cluster.features == name}
        needed |= {data for cluster, data in self.labels() if self.clusters[cluster].features == name}
        for evaluation, models in self.rows.items():
            entry = self.evaluations[evaluation]
            if isinstance(entry.protocol, FeatureProtocol):
                for model in models:
                    if self.evaluated_features(evaluation, model) == name:
                        needed |= {entry.train, entry.test}
        return needed

    def labels(self) -> set[tuple[str, str]]:
        """(cluster, dataset) pairs that some student learns or is measured on, and each cluster's own data."""
        pairs = {(name, cluster.data) for name, cluster in self.clusters.items()}
        for student in self.students.values():
            if isinstance(student.method, ClusterClassification):
                pairs |= {(student.method.cluster, data) for data in (student.data, student.heldout) if data}
        return pairs


def read_config(path: str | Path) -> Config:
    """Read, expand, check and complete a configuration file.

    Raises:
        ConfigError: one clear sentence: what, where, what to do.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.load(file, _NoDoubles)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such configuration file.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return complete(content, str(path))


class _NoDoubles(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, not silently the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        doubled = sorted({key for key in keys if keys.count(key) > 1 and key != "<<"})
        if doubled:
            raise ConfigError(f"{self.name}: line {node.start_mark.line + 1}: the key {doubled[0]!r} stands twice.")
        return super().construct_mapping(node, deep)


def complete(content: Any, where: str = "the configuration") -> Config:
    """Check and complete configuration content, such as Snakemake's `config`."""
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: a configuration is a mapping with the sections {', '.join(SECTIONS)}.")
    try:
        document = _parse(content)
        config = _add_controls(document)
        config = _add_features(config)
        _check(config)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return config


def _parse(content: dict[str, Any]) -> Document:
    expanded = dict(content)
    for section in SECTIONS:
        entries = expanded.get(section)
        if isinstance(entries, dict):
            expanded[section] = expand(section, entries)
        elif entries is not None:
            raise ConfigError(f"{section}: this section maps names to what they are.")
    try:
        return Document.model_validate(expanded)
    except ValidationError as error:
        raise ConfigError(explain(error, "", _CLASSES).lstrip(".")) from None


def _matching(patterns: Iterable[str], names: Iterable[str], where: str) -> Iterator[str]:
    names = list(names)
    seen = set()
    for pattern in patterns:
        found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            raise ConfigError(f"{where}: no model is called {pattern!r}{nearest(pattern, names)}")
        for name in found:
            if name not in seen:
                seen.add(name)
                yield name


def _add_controls(document: Document) -> Config:
    """Random and supervised rows for every trunk of every evaluation."""
    pretexts, students = dict(document.pretexts), dict(document.students)
    rows: dict[str, tuple[str, ...]] = {}
    derived: set[str] = set()
    declared = [*pretexts, *students]
    doubled = set(pretexts) & set(students)
    if doubled:
        raise ConfigError(f"{min(doubled)!r} is both a pretext and a student; models need names of their own.")
    for name, evaluation in document.evaluations.items():
        models = list(_matching(evaluation.models, declared, f"evaluations.{name}.models"))
        for trunk in _distinct_trunks(document, models):
            controls: dict[str, Pretext | Student] = {}
            if "random" in evaluation.controls:
                controls[f"random-{trunk.slug}"] = Pretext(task=RandomNetwork(), trunk=trunk)
            data = _supervised_data(document, name, models)
            if "supervised" in evaluation.controls and data:
                controls[f"supervised-{trunk.slug}-{data}"] = _supervised(document, trunk, data, models)
            for control, entity in controls.items():
                same = [model for model in declared if _entity(document, model) == entity]
                row = same[0] if same else control
                if not same:
                    (pretexts if isinstance(entity, Pretext) else students)[control] = entity  # type: ignore[index]
                    derived.add(control)
                if row not in models:
                    models.append(row)
        rows[name] = tuple(models)
    return Config(
        **{key: getattr(document, key) for key in Document.model_fields if key not in ("pretexts", "students")},
        pretexts=pretexts,
        students=students,
        derived=frozenset(derived),
        rows=rows,
    )


def _entity(document: Document, model: str) -> Pretext | Student:
    return document.pretexts[model] if model in document.pretexts else document.students[model]


def _distinct_trunks(document: Document, models: list[str]) -> list[AnyTrunk]:
    trunks: list[AnyTrunk] = []
    for model in models:
        trunk = _entity(document, model).trunk
        if trunk.name != "hog-words" and trunk not in trunks:
            trunks.append(trunk)
    return trunks


def _supervised_data(document: Document, name: str, models: list[str]) -> str | None:
    """Labels for the supervised control: as told, the evaluation's own, or the first labelled set of its models."""
    evaluation = document.evaluations[name]
    if evaluation.supervised_on:
        return evaluation.supervised_on
    candidates = [evaluation.train]
    for model in models:
        if model in document.students or model in document.pretexts:
            candidates.append(_entity(document, model).data or "")
    for candidate in candidates:
        if candidate in document.datasets and document.datasets[candidate].labelled == "one":
            return candidate
    return None


def _supervised(document: Document, trunk: AnyTrunk, data: str, models: list[str]) -> Student:
    """The recipe of the evaluation's student on this trunk; without one, CaffeNet's published recipe."""
    students = [document.students[model] for model in models if model in document.students]
    for student in [*students, *document.students.values()]:
        if student.trunk == trunk:
            method = Supervised(augment=student.method.augment, dropout=student.method.dropout)
            return Student(method=method, data=data, trunk=trunk, schedule=student.schedule, seed=student.seed)
    caffe = Schedule(
        steps=450_000, batch=256, lr=0.01, drop_every=100_000, bias_lr=2.0, norm_and_bias_decay=False
    )
    return Student(method=Supervised(), data=data, trunk=trunk, schedule=caffe)


def _protocol_features(protocol: FeatureProtocol, model: Model) -> Features:
    return Features(model=model.name, layer=protocol.layer or model.layers[-1], pool=protocol.pool)


def _features_name(declared: dict[str, Features], wanted: Features) -> str:
    for name, entry in declared.items():
        if entry == wanted:
            return name
    pooled = f"-{wanted.pool.slug}" if wanted.pool else ""
    return f"{wanted.model}.{wanted.layer}{pooled}"


def _add_features(config: Config) -> Config:
    features = dict(config.features)
    derived = set(config.derived)
    for evaluation, models in config.rows.items():
        protocol = config.evaluations[evaluation].protocol
        if isinstance(protocol, FeatureProtocol):
            for model in models:
                wanted = _protocol_features(protocol, config.model(model))
                name = _features_name(features, wanted)
                if name not in features:
                    features[name] = wanted
                    derived.add(name)
    return Config(**{**config.__dict__, "features": features, "derived": frozenset(derived)})


def _check(config: Config) -> None:
    """Everything that can be known to be wrong before the first job starts."""
    for name, pretext in config.pretexts.items():
        _known(config.datasets, pretext.data, f"pretexts.{name}.data", "dataset")
        _known(config.datasets, pretext.heldout, f"pretexts.{name}.heldout", "dataset")
        _apart(config, pretext.data, pretext.heldout, f"pretexts.{name}", "data and heldout")
        pairs = pretext.task.name in ("jigsaw++",) and pretext.schedule
        if pairs and (pretext.schedule.micro_batch or pretext.schedule.batch) % 2:  # type: ignore[union-attr]
            raise ConfigError(f"pretexts.{name}.schedule.batch: jigsaw++ takes pictures in pairs; give an even batch.")
    for name, features in config.features.items():
        where = f"features.{name}"
        _known({**config.pretexts, **config.students}, features.model, f"{where}.model", "model")
        _layer(config.model(features.model), features.layer, f"{where}.layer")
        if features.pool and features.layer in config.model(features.model).trunk.fully_connected:
            raise ConfigError(f"{where}.pool: {features.layer} is a vector; leave the pooling out.")
    for name, cluster in config.clusters.items():
        _known(config.features, cluster.features, f"clusters.{name}.features", "features entry")
        _known(config.datasets, cluster.data, f"clusters.{name}.data", "dataset")
        size = getattr(config.datasets[cluster.data], "n", None)
        size = min(filter(None, (size, config.datasets[cluster.data].limit)), default=None)
        if size is not None and cluster.k > size:
            raise ConfigError(f"clusters.{name}.k: {cluster.k} clusters of only {size} pictures; lower k.")
    for name, student in config.students.items():
        where = f"students.{name}"
        _known(config.datasets, student.data, f"{where}.data", "dataset")
        _known(config.datasets, student.heldout, f"{where}.heldout", "dataset")
        _apart(config, student.data, student.heldout, where, "data and heldout")
        if isinstance(student.method, ClusterClassification):
            _known(config.clusters, student.method.cluster, f"{where}.method.cluster", "cluster")
        elif config.datasets[student.data].labelled != "one":
            raise ConfigError(f"{where}.data: {student.data} has no class labels to learn; name a labelled dataset.")
        if student.trunk.name == "hog-words":
            raise ConfigError(f"{where}.trunk: hog-words is no network; name a trunk that can be trained.")
    for name, evaluation in config.evaluations.items():
        _check_evaluation(config, name, evaluation)
    for table in config.report.tables:
        for column in table.columns:
            _known(
                config.evaluations,
                column.split(":")[0],
                f"report.tables: column of {table.title!r}",
                "evaluation",
            )
    _refuse_cycles(config)


def _check_evaluation(config: Config, name: str, evaluation: Evaluation) -> None:
    where = f"evaluations.{name}"
    for key, data in (("train", evaluation.train), ("test", evaluation.test)):
        _known(config.datasets, data, f"{where}.{key}", "dataset")
        has, needs = config.datasets[data].labelled, evaluation.protocol.labels
        if has != needs:
            wants = "one class label" if needs == "one" else "VOC's labels"
            raise ConfigError(
                f"{where}.{key}: {evaluation.protocol.name} needs {wants} a picture, "
                f"which dataset {data!r} does not have; name another dataset."
            )
    _apart(config, evaluation.train, evaluation.test, where, "train and test")
    _known(config.datasets, evaluation.supervised_on, f"{where}.supervised_on", "dataset")
    if isinstance(evaluation.protocol, LinearLayers) and evaluation.protocol.layers:
        for model in config.rows[name]:
            for layer in evaluation.protocol.layers:
                _layer(config.model(model), layer, f"{where}.protocol.layers")
    if evaluation.protocol.name in ("voc-classification",):
        for model in config.rows[name]:
            if config.model(model).trunk.name == "hog-words":
                raise ConfigError(f"{where}.models: {model} is no network and cannot be fine-tuned; leave it out.")


def _known(section: dict[str, Any], name: str | None, where: str, kind: str) -> None:
    if name is not None and name not in section:
        raise ConfigError(f"{where}: no {kind} is called {name!r}{nearest(name, section)}")


def _layer(model: Model, layer: str, where: str) -> None:
    if layer not in model.layers:
        raise ConfigError(
            f"{where}: model {model.name!r} ({model.trunk.name}) has no {layer!r}{nearest(layer, model.layers)}"
        )


def _apart(config: Config, one: str | None, other: str | None, where: str, what: str) -> None:
    """Two datasets that must not share pictures are not the same folder and split."""
    if one is None or other is None:
        return
    same = one == other or config.datasets[one].model_copy(update={"limit": None}) == config.datasets[other].model_copy(
        update={"limit": None}
    )
    if same:
        raise ConfigError(f"{where}: {what} are the same pictures ({one}, {other}); name two splits.")


def _refuse_cycles(config: Config) -> None:
    def needs(model: str) -> list[str]:
        entity = config.model(model).entity
        if isinstance(entity, Student) and isinstance(entity.method, ClusterClassification):
            return [config.features[config.clusters[entity.method.cluster].features].model]
        return []

    for start in config.students:
        chain = [start]
        while needs(chain[-1]):
            chain.append(needs(chain[-1])[0])
            if chain[-1] in chain[:-1]:
                raise ConfigError(f"students.{start}: it hangs on itself: {' <- '.join(chain)}; break the circle.")


__all__ = ["SECTIONS", "Config", "Model", "Pool", "complete", "read_config"]
