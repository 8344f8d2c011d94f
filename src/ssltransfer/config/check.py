"""Checks of a completed configuration that need more than one entry, before any job starts."""

import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from ssltransfer.config.backbones.exported import SUFFIXES as EXPORTED_PROGRAMS
from ssltransfer.config.base import ConfigError, suggest
from ssltransfer.config.check_networks import (
    check_map,
    check_model_size,
    check_pool,
    check_protocol_layers,
    check_task_inputs,
)
from ssltransfer.config.config import Config, ModelEntry
from ssltransfer.config.entities import EXPORT_SUFFIXES, Cluster, Evaluation, Export, Features, Pretext, Student, Table
from ssltransfer.config.formats import AnyDataset, TargetKind, Video
from ssltransfer.config.methods import (
    AttentionTransfer,
    ClusterClassification,
    ContrastWithOthers,
    Distillation,
    FeatureDistillation,
    LayerDistillation,
)
from ssltransfer.config.protocols import (
    ClusterAlignment,
    Detection,
    FasterRcnn,
    FinetuneFromLayer,
    FineTuning,
    Knn,
    Retrieval,
    Segmentation,
    TrainedProtocol,
)
from ssltransfer.config.references import check_references
from ssltransfer.config.tasks import Imported
from ssltransfer.config.weights_metadata import backbone_difference, first_difference


def check(config: Config) -> None:
    """Check references between entries, and what one entry requires of another.

    Raises:
        ConfigError: the problem, its location and the fix.
    """
    for name, pretext in config.pretexts.items():
        _check_pretext(config, pretext, f"pretexts.{name}")
    for name, features in config.features.items():
        if name not in config.derived:  # the entry that reads the others is checked itself
            _check_features(config, features, f"features.{name}")
    for name, cluster in config.clusters.items():
        _check_cluster(config, cluster, f"clusters.{name}")
    for name, student in config.students.items():
        _check_student(config, student, f"students.{name}")
    for name, evaluation in config.evaluations.items():
        _check_evaluation(config, evaluation, config.rows[name], f"evaluations.{name}")
    for name, export in config.exports.items():
        _check_export(config, name, export)
    for name, dataset in config.datasets.items():
        _check_cache(dataset, f"datasets.{name}.cache")
    check_references(config.report)
    for table in config.report.tables:
        _check_table(config, table)
    for claim in config.report.claims:
        _check_patterns(config, claim.columns, (claim.models, claim.others), f"report.claims: {claim.title!r}")
    for figure in config.report.figures:
        where = f"report.figures: {figure.title!r}"
        _check_patterns(config, figure.columns, figure.patterns, where)
        if figure.against and not figure.against.startswith("training:"):
            lines = [pattern for line in figure.lines.values() for pattern in line.values()]
            _check_patterns(config, (figure.against,), lines, where)
    _check_cycles(config)
    for name in config.models:
        model = config.model(name)
        check_model_size(model, f"{_section(model)}.{name}.backbone")
        _check_init(config, model)
        _check_val_knn(config, model.spec, f"{_section(model)}.{name}")


def _check_pretext(config: Config, pretext: Pretext, where: str) -> None:
    for name, task in pretext.parts.items():
        _check_task(config, task, f"{where}.task.tasks.{name}" if name else where)
    file = pretext.task.file if isinstance(pretext.task, Imported) else None
    if file and (difference := backbone_difference(file.location, pretext.backbone)):
        raise ConfigError(f"{where}.backbone: {difference}")
    if getattr(pretext.task, "data_dependent_init", False) and not pretext.backbone.supports_data_init:
        raise ConfigError(
            f"{where}.task.data_dependent_init: {pretext.backbone.name} has shortcuts or batch norms, so its layers "
            "have no scale of their own; remove the key."
        )


def _check_task(config: Config, pretext: Pretext, where: str) -> None:
    """One task with its data and schedule."""
    task, schedule = pretext.task, pretext.schedule
    for key in ("data", "val"):
        _known(config.datasets, getattr(pretext, key), f"{where}.{key}", "dataset")
        _check_targets(config, getattr(pretext, key), task.name, task.targets, f"{where}.{key}")
    _check_disjoint(config, pretext.data, pretext.val, where, "data and val")
    check_task_inputs(pretext, where)
    if schedule is None:
        return
    images = schedule.micro_batch_size or schedule.batch_size
    if images < task.min_images:
        raise ConfigError(
            f"{where}.schedule: {task.name} compares the images of a batch with each other; set batch_size and "
            f"micro_batch_size to at least {task.min_images}."
        )
    if images % task.images_per_group:
        raise ConfigError(
            f"{where}.schedule.batch_size: {task.name} uses images in groups of {task.images_per_group}; set "
            f"batch_size and micro_batch_size to multiples of {task.images_per_group}."
        )


def _section(model: ModelEntry) -> str:
    return "pretexts" if model.stage == "pretext" else "students"


def _check_init(config: Config, model: ModelEntry) -> None:
    """The weights that a training starts from are of the same network."""
    if model.spec.init is None:
        return
    own = config.model(model.spec.init).backbone
    options = own.model_dump(mode="json", exclude_defaults=True)
    if differ := first_difference(options, model.backbone):
        raise ConfigError(
            f"{_section(model)}.{model.name}.init: the backbone of {model.spec.init} has `{differ[0]}`, not "
            f"`{differ[1]}`; give both models the same backbone."
        )


def _check_val_knn(config: Config, spec: Pretext | Student, where: str) -> None:
    """The validation dataset has one label per image, and more images than neighbors."""
    if not spec.val_knn or not spec.val:
        return
    dataset, images = config.datasets[spec.val], _max_images(config.datasets[spec.val])
    if dataset.label_type != "single":
        raise ConfigError(
            f"{where}.val_knn: it needs one class label per image, which dataset {spec.val!r} does not have; name "
            "another `val`, or remove it."
        )
    if images is not None and spec.val_knn >= images:
        raise ConfigError(
            f"{where}.val_knn: {spec.val_knn} is too large for the {images} images of {spec.val}; use at most "
            f"{images - 1}."
        )


def _check_features(config: Config, features: Features, where: str) -> None:
    if features.file:
        if (name := where.partition(".")[2]) in config.models:
            raise ConfigError(f"{where}: a model has the same name, so a teacher {name!r} is ambiguous; rename one.")
        return
    _known(config.models, features.model, f"{where}.model", "model")
    model = config.model(features.model)
    _check_layers(model, [features.layer], f"{where}.layer")
    check_pool(model.backbone, features.layer, features.pool, f"{where}.pool")


def _check_cluster(config: Config, cluster: Cluster, where: str) -> None:
    _known(config.features, cluster.features, f"{where}.features", "features entry")
    _known(config.datasets, cluster.data, f"{where}.data", "dataset")
    images = _max_images(config.datasets[cluster.data])
    if images is not None and cluster.k > images:
        raise ConfigError(f"{where}.k: cannot form {cluster.k} clusters from {images} images; use k <= {images}.")


def _max_images(dataset: AnyDataset) -> int | None:
    """The largest possible number of images; None if unknown."""
    curated = dataset.curate.num_images if dataset.curate else None
    return min(filter(None, (getattr(dataset, "num_images", None), dataset.limit, curated)), default=None)


def _check_student(config: Config, student: Student, where: str) -> None:
    method = student.method
    _known(config.datasets, student.data, f"{where}.data", "dataset")
    _known(config.datasets, student.val, f"{where}.val", "dataset")
    _check_disjoint(config, student.data, student.val, where, "data and val")
    if not student.backbone.is_network:
        raise ConfigError(f"{where}.backbone: {student.backbone.name} cannot be trained; name a neural network.")
    if isinstance(method, ClusterClassification):
        _known(config.clusters, method.cluster, f"{where}.method.cluster", "cluster")
    elif isinstance(method, Distillation):
        if student.pretext:
            _check_task(config, student.pretext, where)
        _check_distillation(config, student, method, where)
    elif method.uses_ground_truth and config.datasets[student.data].label_type != "single":
        raise ConfigError(f"{where}.data: {student.data} has no class labels; name a labeled dataset.")


def _check_distillation(config: Config, student: Student, method: Distillation, where: str) -> None:
    if config.has_file(method.teacher):
        _check_teacher_file(method, f"{where}.method")
    else:
        _known(config.models, method.teacher, f"{where}.method.teacher", "model")
        teacher = config.model(method.teacher)
        layer = method.teacher_layer or teacher.layers[-1]
        _check_layers(teacher, [layer], f"{where}.method.teacher_layer")
        check_pool(teacher.backbone, layer, method.teacher_pool, f"{where}.method.teacher_pool")
    if isinstance(method, ContrastWithOthers):
        images = _max_images(config.datasets[student.data])
        if images and (refusal := method.refusal(images)):
            raise ConfigError(f"{where}.method.{refusal}")
    layers: Iterable[str] = filter(None, (method.layer,))
    if isinstance(method, LayerDistillation):
        layers, teacher_layers = method.layers, method.teacher_layers or method.layers
        _check_layers(teacher, teacher_layers, f"{where}.method.teacher_layers")
    for name in layers:
        if name not in student.backbone.layers:
            hint = suggest(name, student.backbone.layers)
            raise ConfigError(f"{where}.method: {student.backbone.name} has no layer {name!r}{hint}")
    if isinstance(method, FeatureDistillation):
        _check_feature_distillation(config, student, method, where)
    if isinstance(method, AttentionTransfer):
        for backbone, names in ((student.backbone, layers), (teacher.backbone, teacher_layers)):
            for name in set(names) - set(backbone.spatial_layers):
                raise ConfigError(
                    f"{where}.method: {name} of {backbone.name} is a vector and has no attention map; use spatial "
                    f"layers: {', '.join(backbone.spatial_layers)}."
                )


def _check_feature_distillation(config: Config, student: Student, method: FeatureDistillation, where: str) -> None:
    if method.map_weight or any(one.map_weight for one in method.further_teachers):
        check_map(student.backbone, method.map_layer, f"{where}.method.map_layer")
    if method.map_weight:
        teacher = config.model(method.teacher)
        check_map(teacher.backbone, method.teacher_map_layer, f"{where}.method.teacher_map_layer")
    for number, one in enumerate(method.further_teachers):
        place = f"{where}.method.further_teachers.{number}"
        _known(config.models, one.teacher, f"{place}.teacher", "model")
        teacher = config.model(one.teacher)
        layer = one.teacher_layer or teacher.layers[-1]
        _check_layers(teacher, [layer], f"{place}.teacher_layer")
        check_pool(teacher.backbone, layer, one.teacher_pool, f"{place}.teacher_pool")
        if one.map_weight:
            check_map(teacher.backbone, one.teacher_map_layer, f"{place}.teacher_map_layer")
    if method.head == "mlp" and 1 in (student.schedule.batch_size, student.schedule.micro_batch_size):
        raise ConfigError(
            f"{where}.schedule: the head mlp has batch norms; set batch_size and micro_batch_size to at least 2, or "
            "the head to linear."
        )


def _check_teacher_file(method: Distillation, where: str) -> None:
    """Features of a file can be the teacher of methods that read precomputed features."""
    if isinstance(method, LayerDistillation):
        raise ConfigError(
            f"{where}.teacher: {method.name} compares layers of networks, but {method.teacher!r} are features of a "
            "file; name a model."
        )
    if isinstance(method, FeatureDistillation) and method.map_weight:
        raise ConfigError(
            f"{where}.map_weight: the teacher {method.teacher!r} are features of a file, which have no maps; name a "
            "model, or remove the key."
        )
    if not method.precompute_teacher:
        raise ConfigError(
            f"{where}: the teacher {method.teacher!r} are features of a file; set `precompute_teacher: true`."
        )
    if method.teacher_layer or method.teacher_pool:
        raise ConfigError(f"{where}: features of a file have no layers; remove `teacher_layer` and `teacher_pool`.")


def _check_evaluation(config: Config, evaluation: Evaluation, models: Iterable[str], where: str) -> None:
    protocol = evaluation.protocol
    for key, data in zip(("test", "train"), reversed(evaluation.datasets), strict=False):
        _known(config.datasets, data, f"{where}.{key}", "dataset")
        _check_targets(config, data, protocol.name, protocol.targets, f"{where}.{key}")
        if protocol.label_type and config.datasets[data].label_type != protocol.label_type:
            wants = "one class label" if protocol.label_type == "single" else "several labels"
            raise ConfigError(
                f"{where}.{key}: {protocol.name} needs {wants} per image, which dataset {data!r} does not have; name "
                "another dataset."
            )
    _check_disjoint(config, evaluation.train or None, evaluation.test, where, "train and test")
    _known(config.datasets, evaluation.supervised_data, f"{where}.supervised_data", "dataset")
    _check_counts(config, evaluation, where)
    if isinstance(protocol, TrainedProtocol) and protocol.schedule.epochs == "auto":
        raise ConfigError(f"{where}.protocol.schedule.epochs: auto is for pretexts and students; state a number.")
    label_file = getattr(getattr(protocol, "label_subset", None), "file", None)
    if label_file:
        label_file.names()  # fails if the file does not exist
    for model in map(config.model, models):
        _check_evaluated_model(evaluation, model, where)


def _check_counts(config: Config, evaluation: Evaluation, where: str) -> None:
    """Neighbors, clusters and ranks are fewer than the images, if their number is known."""
    protocol = evaluation.protocol
    if isinstance(protocol, Retrieval):
        key, number, data, most = "recall_at", max(protocol.recall_at), evaluation.test, -1
    elif isinstance(protocol, Knn):
        key, number, data, most = "k", max(protocol.ks), evaluation.train, 0
    elif isinstance(protocol, ClusterAlignment):
        key, number, data, most = "k", protocol.k or 1, evaluation.train, 0
    else:
        return
    images = _max_images(config.datasets[data])
    if images is not None and number > images + most:
        raise ConfigError(
            f"{where}.protocol.{key}: {number} is too large for the {images} images of {data}; use at most "
            f"{images + most}."
        )


def _check_evaluated_model(evaluation: Evaluation, model: ModelEntry, where: str) -> None:
    protocol, backbone = evaluation.protocol, model.backbone
    layer = getattr(protocol, "layer", None)
    _check_layers(model, getattr(protocol, "layers", None) or (), f"{where}.protocol.layers")
    _check_layers(model, [layer] if layer else [], f"{where}.protocol.layer")
    if protocol.finetunes and not backbone.is_network:
        raise ConfigError(
            f"{where}.models: {model.name} ({backbone.name}) has no weights and cannot be fine-tuned; remove it."
        )
    if getattr(protocol, "l1_layer_mix", None) is not None:
        if not backbone.supports_layer_mix:
            raise ConfigError(
                f"{where}.protocol.l1_layer_mix: {model.name} has no units of block3 to mix, as resnet101-v2 has; "
                "remove the key."
            )
        if (layer or "block3") != "block3":
            raise ConfigError(f"{where}.protocol.l1_layer_mix: it mixes the units of block3; remove `layer`.")
    if isinstance(protocol, Detection) and (isinstance(protocol, FasterRcnn) or not backbone.top_layers):
        _check_layers(model, ["block3"], f"{where}.models")
    if isinstance(protocol, FineTuning) and protocol.fuse_bn and not backbone.can_fuse_bn:
        raise ConfigError(
            f"{where}.protocol.fuse_bn: {model.name} ({backbone.name}) has batch norms that do not directly follow "
            "layers with weights; remove the key, or evaluate this model in an entry of its own."
        )
    if isinstance(protocol, FineTuning) and protocol.data_dependent_init:
        _check_data_dependent_init(model, protocol, f"{where}.protocol.data_dependent_init")
    if isinstance(protocol, FinetuneFromLayer | Segmentation | Detection) and not backbone.supports_layerwise_forward:
        raise ConfigError(
            f"{where}.models: {protocol.name} runs a network layer by layer, which {backbone.name} ({model.name}) does "
            "not support; remove it."
        )
    check_protocol_layers(protocol, model, where)


def _check_data_dependent_init(model: ModelEntry, protocol: FineTuning, where: str) -> None:
    if not model.backbone.is_feed_forward:
        raise ConfigError(
            f"{where}: {model.name} ({model.backbone.name}) is a residual network, whose layers have no scale of their "
            "own; remove the key, or evaluate this model in an entry of its own."
        )
    if model.backbone.has_batch_norm and not protocol.fuse_bn:
        raise ConfigError(f"{where}: the batch norms of {model.name} undo every scale; set fuse_bn: true too.")


def _check_export(config: Config, name: str, export: Export) -> None:
    where, suffix = f"exports.{name}", Path(name).suffix
    if suffix not in EXPORT_SUFFIXES:
        raise ConfigError(f"{where}: the suffix selects the format; use one of {', '.join(EXPORT_SUFFIXES)}.")
    _known(config.models, export.model, f"{where}.model", "model")
    model, is_program = config.model(export.model), suffix in EXPORTED_PROGRAMS
    if export.layer and not is_program:
        raise ConfigError(f"{where}.layer: a {suffix} file has all layers; remove the key.")
    _check_layers(model, filter(None, [export.layer]), f"{where}.layer")
    if is_program and not model.backbone.is_network:
        raise ConfigError(f"{where}.model: {export.model} ({model.backbone.name}) is not a network; use .safetensors.")


def _check_cache(dataset: AnyDataset, where: str) -> None:
    if dataset.cache and isinstance(dataset, Video):
        raise ConfigError(
            f"{where}: the motion stage already packs the frames of videos; remove `cache` and set "
            "`motion: {format, quality}`."
        )
    if dataset.cache and dataset.target:
        raise ConfigError(f"{where}: its {dataset.target} belong to images of full size; remove `cache`.")


def _check_table(config: Config, table: Table) -> None:
    where = f"report.tables: {table.title!r}"
    models = _check_patterns(config, table.columns, (*table.rows, *table.aggregate.values()), where)
    for row in table.aggregate:
        if row in models:
            raise ConfigError(f"{where}: aggregate.{row} is the name of a model; rename the row.")


def _check_patterns(config: Config, columns: Iterable[str], patterns: Iterable[str], where: str) -> list[str]:
    """The models of some columns, which exist; every pattern matches one of them."""
    models: list[str] = []
    for column in columns:
        evaluation = column.split(":")[0]
        _known(config.evaluations, evaluation, f"{where}: columns", "evaluation")
        models += config.rows[evaluation]
    for pattern in patterns:
        if not fnmatch.filter(models, pattern):
            raise ConfigError(f"{where}: no model in its columns matches {pattern!r}{suggest(pattern, models)}")
    return models


def _check_targets(config: Config, data: str | None, user: str, targets: TargetKind | None, where: str) -> None:
    """The dataset has the targets that a task or a protocol needs."""
    if data is None or targets is None or config.datasets[data].target == targets:
        return
    fix = (
        "name a dataset of format video"
        if targets == "motion"
        else f"set `targets: {targets}` of it, or name another dataset"
    )
    raise ConfigError(f"{where}: {user} needs {targets} of every image, which dataset {data!r} does not have; {fix}.")


def _known(section: Mapping[str, Any], name: str | None, where: str, kind: str) -> None:
    if name is not None and name not in section:
        raise ConfigError(f"{where}: no {kind} is called {name!r}{suggest(name, section)}")


def _check_layers(model: ModelEntry, layers: Iterable[str], where: str) -> None:
    for layer in layers:
        if layer not in model.layers:
            hint = suggest(layer, model.layers)
            raise ConfigError(f"{where}: model {model.name!r} ({model.backbone.name}) has no layer {layer!r}{hint}")


def _check_disjoint(config: Config, one: str | None, other: str | None, where: str, keys: str) -> None:
    """Two datasets that must not share images are not the same folder and split."""
    if one is None or other is None:
        return
    full = [config.datasets[name].model_copy(update={"limit": None}).canonical() for name in (one, other)]
    if one == other or full[0] == full[1]:
        raise ConfigError(f"{where}: {keys} have the same images ({one}, {other}); name two splits.")


def _curators_of(config: Config, model: str) -> Iterator[str]:
    """The models from whose clusters the datasets of a model are chosen."""
    spec = config.models[model]
    names = list(spec.datasets)
    if isinstance(spec, Student) and isinstance(spec.method, ClusterClassification):
        names.append(config.clusters[spec.method.cluster].data)
    for name in names:
        if curator := config.curator_of(name):
            yield config.features[curator.features].model
            names.append(curator.data)


def _check_cycles(config: Config) -> None:
    """No model needs itself: as its teacher, as its initial weights, or to choose its images."""
    sources = {}
    for name in config.models:
        entry = config.model(name)
        _known(config.models, entry.spec.init, f"{_section(entry)}.{name}.init", "model")
        sources[name] = [*config.sources_of(name), *_curators_of(config, name)]
    try:
        TopologicalSorter(sources).prepare()
    except CycleError as error:
        cycle = error.args[1][::-1]
        where = f"{_section(config.model(cycle[0]))}.{cycle[0]}"
        raise ConfigError(f"{where}: circular dependency: {' <- '.join(cycle)}.") from None
