"""Everything that can be known to be wrong before the first job starts."""

from __future__ import annotations

import fnmatch
from typing import Any

from ssltransfer.config.base import ConfigError, suggest
from ssltransfer.config.config import Config, ModelEntry
from ssltransfer.config.entities import Evaluation, Pretext, Student, Table
from ssltransfer.config.formats import TargetKind, Video
from ssltransfer.config.methods import AttentionTransfer, ClusterClassification, Distillation, LayerDistillation
from ssltransfer.config.protocols import Detection, FasterRcnn, FinetuneFromLayer, FineTuning, Segmentation
from ssltransfer.config.references import check_references


def check(config: Config) -> None:
    """Everything that can be known to be wrong before the first job starts."""
    for name, pretext in config.pretexts.items():
        for member, part in pretext.parts.items():
            where = f"pretexts.{name}.task.tasks.{member}" if member else f"pretexts.{name}"
            _check_task(config, part, where)
        if getattr(pretext.task, "data_dependent_init", False) and not pretext.backbone.supports_data_init:
            raise ConfigError(
                f"pretexts.{name}.task.data_dependent_init: {pretext.backbone.name} has shortcuts or batch norms, so that its "
                "layers have no scale of their own; leave it out."
            )
    for name, features in config.features.items():
        where = f"features.{name}"
        _known({**config.pretexts, **config.students}, features.model, f"{where}.model", "model")
        _layer(config.model(features.model), features.layer, f"{where}.layer")
        if features.pool and features.layer in config.model(features.model).backbone.top_layers:
            raise ConfigError(f"{where}.pool: {features.layer} is a vector; leave the pooling out.")
    for name, cluster in config.clusters.items():
        _known(config.features, cluster.features, f"clusters.{name}.features", "features entry")
        _known(config.datasets, cluster.data, f"clusters.{name}.data", "dataset")
        size = getattr(config.datasets[cluster.data], "num_images", None)
        size = min(filter(None, (size, config.datasets[cluster.data].limit)), default=None)
        if size is not None and cluster.k > size:
            raise ConfigError(f"clusters.{name}.k: {cluster.k} clusters of only {size} images; lower k.")
    for name, student in config.students.items():
        where = f"students.{name}"
        _known(config.datasets, student.data, f"{where}.data", "dataset")
        _known(config.datasets, student.val, f"{where}.val", "dataset")
        _apart(config, student.data, student.val, where, "data and val")
        if student.backbone.name == "hog-words":
            raise ConfigError(f"{where}.backbone: hog-words is no network; name a backbone that can be trained.")
        if isinstance(student.method, ClusterClassification):
            _known(config.clusters, student.method.cluster, f"{where}.method.cluster", "cluster")
        elif isinstance(student.method, Distillation):
            if student.pretext:
                _check_task(config, student.pretext, where)
            _check_distillation(config, student, where)
        elif student.method.uses_ground_truth and config.datasets[student.data].label_type != "single":
            raise ConfigError(f"{where}.data: {student.data} has no class labels to learn; name a labelled dataset.")
    for name, evaluation in config.evaluations.items():
        _check_evaluation(config, name, evaluation)
    for name, dataset in config.datasets.items():
        if dataset.cache and isinstance(dataset, Video):
            raise ConfigError(
                f"datasets.{name}.cache: the frames of videos are packed by the motion stage; leave the cache out, and "
                "say `motion: {format, quality}`."
            )
        if dataset.cache and dataset.target:
            raise ConfigError(
                f"datasets.{name}.cache: its {dataset.target} belong to images of full size; leave the cache out."
            )
    check_references(config.report)
    for table in config.report.tables:
        _check_table(config, table)
    _refuse_cycles(config)


def _check_table(config: Config, table: Table) -> None:
    where = f"report.tables: {table.title!r}"
    measured: list[str] = []
    for column in table.columns:
        evaluation = column.split(":")[0]
        _known(config.evaluations, evaluation, f"report.tables: column of {table.title!r}", "evaluation")
        measured += config.rows[evaluation]
    for pattern in (*table.rows, *table.aggregate.values()):
        if not any(fnmatch.fnmatchcase(model, pattern) for model in measured):
            raise ConfigError(f"{where}: no model of its columns is called {pattern!r}{suggest(pattern, measured)}")
    for row in table.aggregate:
        if row in measured:
            raise ConfigError(f"{where}: aggregate.{row} is the name of a model; give the row another one.")


def _check_task(config: Config, part: Pretext, where: str) -> None:
    """One task with its data and schedule."""
    for key in ("data", "val"):
        _known(config.datasets, getattr(part, key), f"{where}.{key}", "dataset")
        _targets(config, getattr(part, key), part.task.name, part.task.targets, f"{where}.{key}")
    _apart(config, part.data, part.val, where, "data and val")
    compares = part.task.name == "exemplar" and part.schedule
    if compares and (part.schedule.micro_batch_size or part.schedule.batch_size) < 2:  # type: ignore[union-attr]
        raise ConfigError(
            f"{where}.schedule: {part.task.name} compares the images of a pass with each other; give batch "
            "and micro_batch_size 2 or more."
        )
    pairs = part.task.name in ("jigsaw++", "exemplar-patches") and part.schedule
    if pairs and (part.schedule.micro_batch_size or part.schedule.batch_size) % 2:  # type: ignore[union-attr]
        raise ConfigError(f"{where}.schedule.batch: {part.task.name} takes images in pairs; give an even batch.")


def _check_distillation(config: Config, student: Student, where: str) -> None:
    method = student.method
    assert isinstance(method, Distillation)
    _known({**config.pretexts, **config.students}, method.teacher, f"{where}.method.teacher", "model")
    teacher = config.model(method.teacher)
    layer = method.teacher_layer or teacher.layers[-1]
    _layer(teacher, layer, f"{where}.method.teacher_layer")
    if isinstance(method, LayerDistillation):
        for name in method.teacher_layers or method.layers:
            _layer(teacher, name, f"{where}.method.teacher_layers")
    if method.teacher_pool and layer in teacher.backbone.top_layers:
        raise ConfigError(f"{where}.method.teacher_pool: {layer} is a vector; leave the pooling out.")
    for name in getattr(method, "layers", None) or filter(None, (method.layer,)):
        if name not in student.backbone.layers:
            raise ConfigError(
                f"{where}.method: {student.backbone.name} has no layer {name!r}{suggest(name, student.backbone.layers)}"
            )
    if isinstance(method, AttentionTransfer):
        for backbone, names in (
            (student.backbone, method.layers),
            (teacher.backbone, method.teacher_layers or method.layers),
        ):
            for name in names:
                if name not in backbone.spatial_layers:
                    raise ConfigError(
                        f"{where}.method: {name} of {backbone.name} is a vector, which attends to no place; name maps: "
                        f"{', '.join(backbone.spatial_layers)}."
                    )


def _check_evaluation(config: Config, name: str, evaluation: Evaluation) -> None:
    where = f"evaluations.{name}"
    for key, data in zip(("test", "train"), reversed(evaluation.datasets), strict=False):
        _known(config.datasets, data, f"{where}.{key}", "dataset")
        has, needs = config.datasets[data].label_type, evaluation.protocol.label_type
        _targets(config, data, evaluation.protocol.name, evaluation.protocol.targets, f"{where}.{key}")
        if needs and has != needs:
            wants = "one class label" if needs == "single" else "VOC's labels"
            raise ConfigError(
                f"{where}.{key}: {evaluation.protocol.name} needs {wants} a image, "
                f"which dataset {data!r} does not have; name another dataset."
            )
    _apart(config, evaluation.train or None, evaluation.test, where, "train and test")
    _known(config.datasets, evaluation.supervised_data, f"{where}.supervised_data", "dataset")
    protocol = evaluation.protocol
    listed = getattr(getattr(protocol, "label_subset", None), "file", None)
    if listed:
        listed.names()
    for model in map(config.model, config.rows[name]):
        for layer in getattr(protocol, "layers", None) or ():
            _layer(model, layer, f"{where}.protocol.layers")
        layer = getattr(protocol, "layer", None)
        if layer:
            _layer(model, layer, f"{where}.protocol.layer")
        if protocol.finetunes and model.backbone.name == "hog-words":
            raise ConfigError(f"{where}.models: {model.name} is no network and cannot be fine-tuned; leave it out.")
        if getattr(protocol, "l1_layer_mix", None) is not None and not model.backbone.name.endswith("-v2"):
            raise ConfigError(
                f"{where}.protocol.l1_layer_mix: {model.name} has no units of block3 to mix; resnet101-v2 has; leave it out."
            )
        if getattr(protocol, "l1_layer_mix", None) is not None and (layer or "block3") != "block3":
            raise ConfigError(f"{where}.protocol.l1_layer_mix: it mixes the units of block3; leave `layer` out.")
        if isinstance(protocol, FasterRcnn):
            _layer(model, "block3", f"{where}.models")
        if isinstance(protocol, FineTuning) and protocol.fuse_bn and not model.backbone.can_fuse_bn:
            raise ConfigError(
                f"{where}.protocol.fuse_bn: {model.name} ({model.backbone.name}) has batch norms elsewhere than "
                "right after layers with weights; leave it out, or give it an evaluation of its own."
            )
        if isinstance(protocol, FineTuning) and protocol.data_dependent_init:
            _refuse_rescaling(model, protocol, where)
        if (
            isinstance(protocol, FinetuneFromLayer | Segmentation | Detection)
            and not model.backbone.supports_layerwise_forward
        ):
            raise ConfigError(
                f"{where}.models: {model.name} is a {model.backbone.name} network, which cannot be taken apart for "
                f"{protocol.name}; leave it out."
            )


def _refuse_rescaling(model: ModelEntry, protocol: FineTuning, where: str) -> None:
    """Of networks whose scales would mean nothing."""
    if not model.backbone.is_feed_forward:
        raise ConfigError(
            f"{where}.protocol.data_dependent_init: layers of {model.name} ({model.backbone.name}) have no scale of their own, "
            "as those of a residual network; leave it out, or give it an evaluation of its own."
        )
    if model.backbone.has_batch_norm and not protocol.fuse_bn:
        raise ConfigError(
            f"{where}.protocol.data_dependent_init: {model.name} has batch norms, which undo every scale; set fuse_bn: true too."
        )


def _targets(config: Config, data: str | None, who: str, wanted: TargetKind | None, where: str) -> None:
    """What a task or a protocol needs beside the images, these have."""
    if data is None or wanted is None or config.datasets[data].target == wanted:
        return
    mend = (
        "name a dataset of format video"
        if wanted == "motion"
        else f"set `targets: {wanted}` of it, or name another dataset"
    )
    raise ConfigError(f"{where}: {who} needs {wanted} of every image, which dataset {data!r} does not have; {mend}.")


def _known(section: dict[str, Any], name: str | None, where: str, kind: str) -> None:
    if name is not None and name not in section:
        raise ConfigError(f"{where}: no {kind} is called {name!r}{suggest(name, section)}")


def _layer(model: ModelEntry, layer: str, where: str) -> None:
    if layer not in model.layers:
        raise ConfigError(
            f"{where}: model {model.name!r} ({model.backbone.name}) has no {layer!r}{suggest(layer, model.layers)}"
        )


def _apart(config: Config, one: str | None, other: str | None, where: str, what: str) -> None:
    """Two datasets that must not share images are not the same folder and split."""
    if one is None or other is None:
        return
    whole = [config.datasets[name].model_copy(update={"limit": None}).canonical() for name in (one, other)]
    if one == other or whole[0] == whole[1]:
        raise ConfigError(f"{where}: {what} are the same images ({one}, {other}); name two splits.")


def _refuse_cycles(config: Config) -> None:
    def needs(model: str) -> list[str]:
        entity = config.model(model).spec
        method = entity.method if isinstance(entity, Student) else None
        if isinstance(method, ClusterClassification):
            return [config.features[config.clusters[method.cluster].features].model]
        if isinstance(method, Distillation):
            return [method.teacher]
        return []

    for start in config.students:
        chain = [start]
        while needs(chain[-1]):
            chain.append(needs(chain[-1])[0])
            if chain[-1] in chain[:-1]:
                raise ConfigError(f"students.{start}: it hangs on itself: {' <- '.join(chain)}; break the circle.")
