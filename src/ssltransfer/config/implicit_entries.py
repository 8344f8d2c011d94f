"""What a configuration makes by itself: baselines for every backbone, features for every evaluation on features."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator

from ssltransfer.config.backbones import AnyBackbone
from ssltransfer.config.base import ConfigError, suggest
from ssltransfer.config.config import Config, features_name, protocol_features, teacher_features
from ssltransfer.config.entities import ConfigFile, Features, Pretext, Student
from ssltransfer.config.methods import ClusterClassification, Distillation, Supervised
from ssltransfer.config.protocols import FeatureProtocol
from ssltransfer.config.schedule import Schedule
from ssltransfer.config.tasks import Imported, RandomNetwork, Snapshot


def _matching(patterns: Iterable[str], names: Iterable[str], where: str) -> Iterator[str]:
    names = list(names)
    seen = set()
    for pattern in patterns:
        # Snapshots, NAME@STEP, are many: a pattern must say that it means them.
        found = [name for name in names if fnmatch.fnmatchcase(name, pattern) and ("@" in pattern or "@" not in name)]
        if not found:
            raise ConfigError(f"{where}: no model is called {pattern!r}{suggest(pattern, names)}")
        for name in found:
            if name not in seen:
                seen.add(name)
                yield name


def add_snapshots(document: ConfigFile) -> ConfigFile:
    """A model for each snapshot of a pretext."""
    pretexts = dict(document.pretexts)
    for name, pretext in document.pretexts.items():
        if isinstance(pretext.task, Snapshot):
            raise ConfigError(f"pretexts.{name}.task: snapshots are made by themselves; give `snapshots` of a pretext.")
        for step in pretext.snapshots:
            task = Snapshot(source=name, step=step)
            pretexts[f"{name}@{step}"] = Pretext(task=task, backbone=pretext.backbone)
    return document.model_copy(update={"pretexts": pretexts})


def add_baselines(document: ConfigFile) -> Config:
    """Random and supervised rows for every backbone of every evaluation, but for no supervised ones of teachers' files."""
    pretexts, students = dict(document.pretexts), dict(document.students)
    rows: dict[str, tuple[str, ...]] = {}
    derived = {name for name, pretext in pretexts.items() if isinstance(pretext.task, Snapshot)}
    declared = [*pretexts, *students]
    doubled = set(pretexts) & set(students)
    if doubled:
        raise ConfigError(f"{min(doubled)!r} is both a pretext and a student; models need names of their own.")
    for name, evaluation in document.evaluations.items():
        models = list(_matching(evaluation.models, declared, f"evaluations.{name}.models"))
        for backbone in _distinct_backbones(document, models):
            baselines: dict[str, Pretext | Student] = {}
            if "random" in evaluation.baselines:
                baselines[f"random-{backbone.slug}"] = Pretext(task=RandomNetwork(), backbone=backbone)
            if "rescaled" in evaluation.baselines and evaluation.train and backbone.supports_data_init:
                baseline = f"rescaled-{backbone.slug}-{evaluation.train}"
                baselines[baseline] = Pretext(
                    task=RandomNetwork(data_dependent_init=True), backbone=backbone, data=evaluation.train
                )
            data = _supervised_data(document, name, models)
            if "supervised" in evaluation.baselines and data and not _only_teachers(document, models, backbone):
                baselines[f"supervised-{backbone.slug}-{data}"] = _supervised(document, backbone, data, models)
            for baseline, spec in baselines.items():
                same = [model for model in declared if _spec(document, model) == spec]
                row = same[0] if same else baseline
                if not same:
                    if isinstance(spec, Pretext):
                        pretexts[baseline] = spec
                    else:
                        students[baseline] = spec
                    derived.add(baseline)
                if row not in models:
                    models.append(row)
        rows[name] = tuple(models)
    return Config(
        **{key: getattr(document, key) for key in ConfigFile.model_fields if key not in ("pretexts", "students")},
        pretexts=pretexts,
        students=students,
        derived=frozenset(derived),
        rows=rows,
    )


def _spec(document: ConfigFile, model: str) -> Pretext | Student:
    return document.pretexts[model] if model in document.pretexts else document.students[model]


def _distinct_backbones(document: ConfigFile, models: list[str]) -> list[AnyBackbone]:
    backbones: list[AnyBackbone] = []
    for model in models:
        backbone = _spec(document, model).backbone
        if backbone.name != "hog-words" and backbone not in backbones:
            backbones.append(backbone)
    return backbones


def _only_teachers(document: ConfigFile, models: list[str], backbone: AnyBackbone) -> bool:
    """Whether all of these models on a backbone are files that students learn from: nobody asked to train their kind."""
    methods = [student.method for student in document.students.values()]
    clusters = [
        document.clusters.get(method.cluster) for method in methods if isinstance(method, ClusterClassification)
    ]
    features = [document.features.get(cluster.features) for cluster in clusters if cluster]
    teachers = {method.teacher for method in methods if isinstance(method, Distillation)}
    teachers |= {entry.model for entry in features if entry}
    files = {name for name, pretext in document.pretexts.items() if isinstance(pretext.task, Imported)}
    return all(model in teachers & files for model in models if _spec(document, model).backbone == backbone)


def _supervised_data(document: ConfigFile, name: str, models: list[str]) -> str | None:
    """Labels for the supervised baseline: as told, the evaluation's own, or the first labelled set of its models."""
    evaluation = document.evaluations[name]
    if evaluation.supervised_data:
        return evaluation.supervised_data
    candidates = [evaluation.train]
    for model in models:
        if model in document.students or model in document.pretexts:
            candidates.append(_spec(document, model).data or "")
    for candidate in candidates:
        if candidate in document.datasets and document.datasets[candidate].label_type == "single":
            return candidate
    return None


def _supervised(document: ConfigFile, backbone: AnyBackbone, data: str, models: list[str]) -> Student:
    """The recipe of the evaluation's student on this backbone; without one, CaffeNet's published recipe."""
    students = [document.students[model] for model in models if model in document.students]
    for student in [*students, *document.students.values()]:
        if student.backbone == backbone and student.method.is_self_contained:
            method = Supervised(augment=student.method.augment, dropout=student.method.dropout)
            return Student(method=method, data=data, backbone=backbone, schedule=student.schedule, seed=student.seed)
    caffe = Schedule(
        steps=450_000, batch_size=256, lr=0.01, step_size=100_000, bias_lr_mult=2.0, decay_norm_and_bias=False
    )
    return Student(method=Supervised(), data=data, backbone=backbone, schedule=caffe)


def add_features(config: Config) -> Config:
    """Features of every model that an evaluation or a student reads features of, unless they are declared."""
    features = dict(config.features)
    derived = set(config.derived)
    for wanted in _read_features(config):
        name = features_name(features, wanted)
        if name not in features:
            features[name] = wanted
            derived.add(name)
    return Config(**{**config.__dict__, "features": features, "derived": frozenset(derived)})


def _read_features(config: Config) -> Iterator[Features]:
    models = {*config.pretexts, *config.students}
    for student in config.students.values():
        method = student.method
        if isinstance(method, Distillation) and method.precompute_teacher and method.teacher in models:
            yield teacher_features(method, config.model(method.teacher))
    for evaluation, row in config.rows.items():
        protocol = config.evaluations[evaluation].protocol
        if isinstance(protocol, FeatureProtocol):
            for model in row:
                yield protocol_features(protocol, config.model(model))
