"""Entries that a configuration implies without naming them.

- `NAME@STEP`: a model for each of a pretext's `snapshots`.
- `random-...`, `rescaled-...`, `supervised-...`: the `baselines` of each evaluation, for each backbone of its models.
- features that an evaluation or a student reads, unless equal features are declared.
"""

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ssltransfer.config.backbones import AnyBackbone
from ssltransfer.config.base import ConfigError, suggest
from ssltransfer.config.config import Config, features_name, protocol_features, teacher_features
from ssltransfer.config.entities import ConfigFile, Evaluation, Features, Pretext, Student
from ssltransfer.config.methods import ClusterClassification, Distillation, Supervised
from ssltransfer.config.protocols import FeatureProtocol
from ssltransfer.config.schedule import Schedule
from ssltransfer.config.tasks import ForeignWeights, RandomNetwork, Snapshot
from ssltransfer.digests import bytes_digest

# The published training schedule of bvlc_reference_caffenet (Jia et al. 2014).
CAFFENET = Schedule(
    steps=450_000, batch_size=256, lr=0.01, step_size=100_000, bias_lr_mult=2.0, decay_norm_and_bias=False
)


def add_snapshots(file: ConfigFile) -> ConfigFile:
    """A model for each snapshot of a pretext."""
    pretexts = dict(file.pretexts)
    for name, pretext in file.pretexts.items():
        if isinstance(pretext.task, Snapshot):
            raise ConfigError(f"pretexts.{name}.task: set `snapshots` of a pretext instead; they become models.")
        for step in pretext.snapshots:
            pretexts[f"{name}@{step}"] = Pretext(task=Snapshot(source=name, step=step), backbone=pretext.backbone)
    return file.model_copy(update={"pretexts": pretexts})


def add_baselines(file: ConfigFile) -> Config:
    """The models of each evaluation, with its baselines for every backbone among them.

    A declared model that equals a baseline takes its place. A baseline whose name another model has, such as a
    supervised one with another schedule in another evaluation, has a digest in its name. The supervised baseline is
    left out for a backbone of which the evaluation has only imported teachers.
    """
    models: dict[str, Pretext | Student] = {**file.pretexts, **file.students}
    derived = {name for name, pretext in file.pretexts.items() if isinstance(pretext.task, Snapshot)}
    duplicates = set(file.pretexts) & set(file.students)
    if duplicates:
        raise ConfigError(f"{min(duplicates)!r} is the name of both a pretext and a student; rename one of them.")
    declared = dict(models)
    rows: dict[str, tuple[str, ...]] = {}
    for name, evaluation in file.evaluations.items():
        row = dict.fromkeys(_matching(evaluation.models, declared, f"evaluations.{name}.models"))
        evaluated = {model: declared[model] for model in row}
        for backbone in _distinct_backbones(evaluated):
            for baseline, spec in _baselines(file, evaluation, evaluated, backbone):
                equal = next((model for model, other in declared.items() if other == spec), None)
                if equal is None:
                    if models.get(baseline, spec) != spec:  # another spec has this name
                        baseline = f"{baseline}-{bytes_digest(spec.canonical().encode())[:8]}"
                    models[baseline] = spec
                    derived.add(baseline)
                row[equal or baseline] = None
        rows[name] = tuple(row)
    sections = {key: getattr(file, key) for key in ConfigFile.model_fields}
    sections["pretexts"] = {name: spec for name, spec in models.items() if isinstance(spec, Pretext)}
    sections["students"] = {name: spec for name, spec in models.items() if isinstance(spec, Student)}
    return Config(**sections, derived=frozenset(derived), rows=rows)


def _matching(patterns: Iterable[str], names: Iterable[str], where: str) -> Iterator[str]:
    names = list(names)
    for pattern in patterns:
        # Snapshots, NAME@STEP, are numerous: only patterns with @ match them.
        found = [name for name in fnmatch.filter(names, pattern) if "@" in pattern or "@" not in name]
        if not found:
            raise ConfigError(f"{where}: no model is called {pattern!r}{suggest(pattern, names)}")
        yield from found


def _distinct_backbones(models: dict[str, Pretext | Student]) -> list[AnyBackbone]:
    backbones: list[AnyBackbone] = []
    for model in models.values():
        if model.backbone.is_network and model.backbone not in backbones:
            backbones.append(model.backbone)
    return backbones


def _baselines(
    file: ConfigFile, evaluation: Evaluation, models: dict[str, Pretext | Student], backbone: AnyBackbone
) -> Iterator[tuple[str, Pretext | Student]]:
    """Name and spec of each baseline of a backbone."""
    train = evaluation.train
    if "random" in evaluation.baselines:
        yield f"random-{backbone.slug}", Pretext(task=RandomNetwork(), backbone=backbone)
    if "rescaled" in evaluation.baselines and train and backbone.supports_data_init:
        task = RandomNetwork(data_dependent_init=True)
        yield f"rescaled-{backbone.slug}-{train}", Pretext(task=task, backbone=backbone, data=train)
    if "supervised" in evaluation.baselines:
        data = _supervised_data(file, evaluation, models)
        same_backbone = {name for name, model in models.items() if model.backbone == backbone}
        if data and not same_backbone <= _imported_teachers(file):
            yield f"supervised-{backbone.slug}-{data}", _supervised(file, backbone, data, models)


def _imported_teachers(file: ConfigFile) -> set[str]:
    """Imported models that some student learns from."""
    teachers: set[str] = set()
    for student in file.students.values():
        method = student.method
        if isinstance(method, Distillation):
            teachers |= {method.teacher, *method.further}
        elif isinstance(method, ClusterClassification) and method.cluster in file.clusters:
            features = file.features.get(file.clusters[method.cluster].features)
            teachers |= {features.model} if features else set()
    return {name for name in teachers & file.pretexts.keys() if isinstance(file.pretexts[name].task, ForeignWeights)}


def _supervised_data(file: ConfigFile, evaluation: Evaluation, models: dict[str, Pretext | Student]) -> str | None:
    """`supervised_data`, else the first labeled dataset among the evaluation's own and those of its models."""
    if evaluation.supervised_data:
        return evaluation.supervised_data
    candidates = (evaluation.train, *(model.data for model in models.values()))
    labeled = {name for name, dataset in file.datasets.items() if dataset.label_type == "single"}
    return next((data for data in candidates if data in labeled), None)


def _supervised(file: ConfigFile, backbone: AnyBackbone, data: str, models: dict[str, Pretext | Student]) -> Student:
    """Schedule of a student on this backbone, preferably one in the evaluation; default: CaffeNet's schedule."""
    evaluated = [model for model in models.values() if isinstance(model, Student)]
    for student in [*evaluated, *file.students.values()]:
        if student.backbone == backbone and student.method.is_self_contained:
            method = Supervised(augment=student.method.augment, dropout=student.method.dropout)
            return Student(method=method, data=data, backbone=backbone, schedule=student.schedule, seed=student.seed)
    return Student(method=Supervised(), data=data, backbone=backbone, schedule=CAFFENET)


def add_features(config: Config) -> Config:
    """The features that evaluations and students read, unless equal ones are declared."""
    features = dict(config.features)
    for needed in _needed_features(config):
        features.setdefault(features_name(features, needed), needed)
    derived = config.derived | (features.keys() - config.features.keys())
    return replace(config, features=features, derived=derived)


def _needed_features(config: Config) -> Iterator[Features]:
    for student in config.students.values():
        method = student.method
        if isinstance(method, Distillation) and method.precompute_teacher and method.teacher in config.models:
            yield teacher_features(method, config.model(method.teacher))
    for evaluation, row in config.rows.items():
        protocol = config.evaluations[evaluation].protocol
        if isinstance(protocol, FeatureProtocol):
            for model in row:
                yield protocol_features(protocol, config.model(model))
