"""Cost of each job of a configuration."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pyarrow.parquet as pq

from ssltransfer.artifacts.index import read_classes, read_index
from ssltransfer.artifacts.vector_file import vector_dims
from ssltransfer.config import Config
from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.base import USUAL_ASPECT
from ssltransfer.config.entities import Pretext, Student
from ssltransfer.config.formats import AnyDataset, CurateOptions, Video
from ssltransfer.config.formats.folders import FolderDataset
from ssltransfer.config.protocols import FeatureProtocol, TrainedProtocol
from ssltransfer.config.tasks import Hog, MultiTask
from ssltransfer.errors import UserError
from ssltransfer.models.flops import flops
from ssltransfer.models.weights import GRID
from ssltransfer.planning.machine import Machine
from ssltransfer.planning.networks import (
    dims_of,
    parameters,
    protocol_flops,
    task_flops,
    teacher_memory,
    training_memory,
)
from ssltransfer.stages.cache import cached_pixels
from ssltransfer.stages.index import list_images

CHECKED_PER_CORE = 900.0  # images per second: the strict decoding of the index stage
FLOW_PIXELS = 7e6  # per second and core: dense flow, camera and tracks between two frames
USUAL_CLASSES = 1000  # ImageNet
TRAINING = 3.0  # forward and backward, in forwards


@dataclass(frozen=True)
class CostEstimate:
    """Cost of one job; None if the number of images is unknown.

    Attributes:
        needs: names of models, clusterings, features and datasets.
        hours: on one device (or its CPU cores, if decoding is the limit).
        disk_gb: of the outputs.
        memory_gb: host or device memory for the data of the job.
        limit: the slowest part, such as decoding.
    """

    stage: str
    name: str
    needs: tuple[str, ...]
    hours: float | None
    disk_gb: float | None
    memory_gb: float | None
    limit: str = ""


def images(config: Config, dataset: str) -> int | None:
    """Number of images (videos: clips) of a dataset: indexed, published, or listed in its folder; None if unknown."""
    entry, index = config.datasets[dataset], _index_of(config, dataset)
    if index.is_file():
        return int(pq.read_metadata(index).num_rows)
    if entry.curate:
        source = images(config, config.clusters[entry.curate.cluster].data)
        return min(filter(None, (source, entry.curate.num_images)), default=None)
    if isinstance(entry, Video):
        return entry.num_images_hint
    found = _listed(entry) if _is_listed(entry) else None
    return found[0] if isinstance(found, tuple) else entry.estimated_num_images


def classes(config: Config, dataset: str) -> int:
    """Number of classes of a dataset: indexed, or listed in its folder; ImageNet's if unknown."""
    entry, index = config.datasets[dataset], _index_of(config, dataset)
    if index.is_file():
        return len(read_classes(index)) or USUAL_CLASSES
    found = _listed(entry) if _is_listed(entry) else None
    return (found[1] if isinstance(found, tuple) else 0) or USUAL_CLASSES


def _index_of(config: Config, dataset: str) -> Path:
    entry = config.datasets[dataset]
    stage = "curate" if entry.curate else "motion" if isinstance(entry, Video) else "index"
    return Path(config.results) / stage / f"{dataset}.parquet"


def listing_problem(dataset: AnyDataset) -> str | None:
    """Why `images` cannot list the images of a folder, such as a missing column; None if it can, or does not list."""
    if isinstance(dataset, Video) or dataset.curate or not _is_listed(dataset) or dataset.creates_root:
        return None
    found = _listed(dataset)
    return str(found) if isinstance(found, UserError) else None


def _is_listed(dataset: AnyDataset) -> TypeGuard[FolderDataset]:
    return isinstance(dataset, FolderDataset) and dataset.num_images_hint is None


@cache
def _listed(dataset: FolderDataset) -> tuple[int, int] | UserError:
    """Numbers of images and classes of a folder before any image is opened, or why it cannot be listed."""
    try:
        found = list_images(dataset)
    except UserError as error:
        return error
    return len(found.paths), len(found.classes)


def estimate(config: Config, machine: Machine) -> Iterator[CostEstimate]:
    """The cost of every job, in the order of the stages."""
    made = {name: dataset for name, dataset in config.datasets.items() if dataset.curate is None}
    for name in made:
        yield _index(config, machine, name)
    for name, dataset in made.items():
        if isinstance(dataset, Video):
            yield _motion(config, machine, name, dataset)
        if dataset.cache:
            yield _cache(config, machine, name)
    for name, pretext in config.pretexts.items():
        yield _pretext(config, machine, name, pretext)
    for name in config.features:
        for data in sorted(config.datasets_of_features(name)):
            yield _features(config, machine, name, data)
    for name in config.clusters:
        yield _cluster(config, machine, name)
    for name, data in sorted(config.labels()):
        yield _label(config, machine, name, data)
    for name, dataset in config.datasets.items():
        if dataset.curate:
            yield _curate(config, machine, name, dataset.curate)
    for name, student in config.students.items():
        yield _student(config, machine, name, student)
    for name, models in config.rows.items():
        for model in models:
            yield _evaluation(config, machine, name, model)
    for name, export in config.exports.items():
        entry = config.model(export.model)
        disk = parameters(entry.backbone, include_top=entry.has_top) * 4e-9
        yield CostEstimate("export", name, (export.model,), 0.0, disk, None)


def _index(config: Config, machine: Machine, name: str) -> CostEstimate:
    dataset, n = config.datasets[name], images(config, name)
    decoded = n * dataset.motion.clip_stride if n and isinstance(dataset, Video) else n
    hours = decoded / CHECKED_PER_CORE / machine.cores / 3600 if decoded else None
    return CostEstimate("index", name, (), hours, n * 1e-7 if n else None, None, "decoding")


def _motion(config: Config, machine: Machine, name: str, dataset: Video) -> CostEstimate:
    n, options = images(config, name), dataset.motion
    flows = min(options.clip_stride, options.clip_length - 1)
    pixels = math.prod(options.size)
    hours = n * flows * pixels / FLOW_PIXELS / machine.cores / 3600 if n else None
    disk = n * pixels * options.cache.bytes_per_pixel / 1e9 if n else None
    return CostEstimate("motion", name, (name,), hours, disk, None, "optical flow")


def _cache(config: Config, machine: Machine, name: str) -> CostEstimate:
    n = images(config, name)
    hours = n / machine.images(None) / 3600 if n else None
    return CostEstimate("cache", name, (name,), hours, _cache_gb(config, name), None, "decoding")


def _features(config: Config, machine: Machine, name: str, data: str) -> CostEstimate:
    features, n = config.features[name], images(config, data)
    size = 2 if features.precision == "float16" else 4
    dims = _dims(config, name)
    disk = n * dims * size / 1e9 if n and dims else None
    if features.file:
        return CostEstimate("features", f"{name} on {data}", (data,), 0.0 if n else None, disk, None)
    backbone = config.model(features.model).backbone
    passes = GRID**2 if features.patches else 1
    hours, limit = _forward_passes(config, machine, backbone, data, passes)
    return CostEstimate("features", f"{name} on {data}", (features.model, data), hours, disk, None, limit)


def _dims(config: Config, name: str) -> int | None:
    """Dimensions of features; None for a file that cannot be read."""
    features = config.features[name]
    if features.file:
        return vector_dims(features.file.location)
    return dims_of(config.model(features.model).backbone, features.layer, features.pool)


def _cluster(config: Config, machine: Machine, name: str) -> CostEstimate:
    cluster = config.clusters[name]
    dims, n = _dims(config, cluster.features), images(config, cluster.data)
    needs = (cluster.features, cluster.data)
    if dims is None:
        return CostEstimate("cluster", name, needs, None, None, None, "products")
    part = min(1.0, cluster.resample_points * cluster.k / n) if n and cluster.resample_points else 0.1
    passes = cluster.max_iter + cluster.resample * (part * cluster.max_iter + 1)
    work = 2.0 * n * dims * cluster.k * passes if n else None
    hours = work / machine.rate("products") / 3600 if work else None
    memory = n * dims * 2 / 1e9 if n else None
    return CostEstimate("cluster", name, needs, hours, cluster.k * dims * 4e-9, memory, "products")


def _curate(config: Config, machine: Machine, name: str, options: CurateOptions) -> CostEstimate:
    """Near duplicates: the products of all pairs within clusters of equal sizes."""
    cluster = config.clusters[options.cluster]
    dims, n = _dims(config, cluster.features), images(config, cluster.data)
    work = 0.0 if n else None
    if options.max_similarity:
        work = 2.0 * n * (n / cluster.k) * dims if n and dims else None
    hours = None if work is None else work / machine.rate("products") / 3600
    needs = (options.cluster, cluster.data, *([cluster.features] if options.max_similarity else []))
    kept = images(config, name)
    return CostEstimate("curate", name, needs, hours, kept * 1e-7 if kept else None, None, "products")


def _label(config: Config, machine: Machine, cluster: str, data: str) -> CostEstimate:
    n, source = images(config, data), config.clusters[cluster].features
    hours, limit = (0.0, "") if n else (None, "")
    if not config.reads_features(cluster, data):
        source = config.features[source].model
        hours, limit = _forward_passes(config, machine, config.model(source).backbone, data)
    disk = n * 5e-8 if n else None
    return CostEstimate("label", f"{cluster} on {data}", (cluster, source, data), hours, disk, None, limit)


def _student(config: Config, machine: Machine, name: str, student: Student) -> CostEstimate:
    backbone, schedule = student.backbone, student.schedule
    learned = getattr(student.method, "cluster", None) or config.teacher_features_of(name)
    teacher = None if learned else getattr(student.method, "teacher", None)
    further = student.method.further
    needs = tuple(filter(None, (learned or teacher, *further, student.init, *student.datasets)))
    n, reading = images(config, student.data), machine.images(config.datasets[student.data])
    schedule = schedule.for_images(n) if n else schedule
    seen = schedule.total_steps(n) * schedule.batch_size if n else None
    work = _student_flops(student, config.model(teacher).backbone if teacher else None)
    work += sum(flops(config.model(one).backbone) for one in further)
    online = [config.model(one).backbone for one in (*filter(None, [teacher]), *further)]
    online += [backbone] * student.method.has_momentum_encoder
    memory = training_memory(backbone, schedule) + sum(teacher_memory(one, schedule) for one in online)
    hours, limit = _passes(seen, reading, work, machine.rate("training", backbone.name)) if seen else (None, "")
    disk = parameters(backbone, include_top=student.method.is_self_contained) * 4e-9
    return CostEstimate("student", name, needs, hours, disk, memory, limit)


def _student_flops(student: Student, teacher: BackboneOptions | None) -> float:
    """Floating-point operations per training image: the student, and the teacher or momentum encoder beside it."""
    part = student.pretext
    if part is not None and teacher is not None:  # both see the task's inputs
        return TRAINING * task_flops(part) + task_flops(part.model_copy(update={"backbone": teacher}))
    work = TRAINING * flops(student.backbone, include_top=True)
    if student.method.has_momentum_encoder:
        work += flops(student.backbone)
    return work + (flops(teacher) if teacher else 0.0)


def _cache_gb(config: Config, name: str) -> float | None:
    """Size of a dataset's cache: from its index if it exists, else from the usual aspect ratio."""
    options, n = config.datasets[name].cache, images(config, name)
    if options is None or n is None:
        return None
    path = Path(config.results) / "index" / f"{name}.parquet"
    short = min(options.short_side, getattr(config.datasets[name], "size", options.short_side))
    pixels = cached_pixels(read_index(path), options).sum() if path.is_file() else n * short**2 * USUAL_ASPECT
    return float(pixels) * options.bytes_per_pixel / 1e9


def _pretext(config: Config, machine: Machine, name: str, pretext: Pretext) -> CostEstimate:
    disk = parameters(pretext.backbone, include_top=False) * 4e-9 * (1 + len(pretext.snapshots))
    needs = tuple(filter(None, (pretext.data, getattr(pretext.task, "source", None))))
    if not pretext.task.is_trainable:
        work, sampled = 0.0, 0
        if isinstance(pretext.task, Hog):  # k-means of descriptors with 36 dimensions
            sampled = pretext.task.num_descriptors
            work = 2.0 * sampled * dims_of(pretext.backbone, "words", None) * 36 * pretext.task.max_iter
        return CostEstimate("pretext", name, needs, work / machine.rate("products") / 3600, disk, sampled * 144e-9)
    return _training(config, machine, name, pretext, disk)


def _training(config: Config, machine: Machine, name: str, pretext: Pretext, disk: float) -> CostEstimate:
    """Cost of a task, or of several with their shares of the steps."""
    parts = pretext.parts
    needs = tuple(filter(None, (pretext.init, *pretext.datasets)))
    schedules = {member: part.schedule for member, part in parts.items() if part.schedule is not None}
    shares = dict.fromkeys(parts, 1.0)
    if isinstance(pretext.task, MultiTask):
        shares = pretext.task.task_weights({member: schedule.batch_size for member, schedule in schedules.items()})
    hours, memory, limits = 0.0, 0.0, []
    for member, part in parts.items():
        schedule, n = schedules[member], images(config, part.data) if part.data else None
        memory = max(memory, training_memory(part.backbone, schedule))
        if n is None and schedule.steps is None:
            return CostEstimate("pretext", name, needs, None, disk, None)
        schedule = schedule.for_images(n or 1)
        seen = schedule.total_steps(n or 1) * schedule.batch_size * shares[member] / sum(shares.values())
        reading = machine.images(config.datasets[part.data] if part.data else None)
        passes, limit = _passes(
            seen, reading, TRAINING * task_flops(part), machine.rate("training", part.backbone.name)
        )
        hours += passes
        limits.append((passes, limit))
    return CostEstimate("pretext", name, needs, hours, disk, memory, max(limits)[1])


def _evaluation(config: Config, machine: Machine, name: str, model: str) -> CostEstimate:
    evaluation = config.evaluations[name]
    protocol, backbone = evaluation.protocol, config.model(model).backbone
    test = images(config, evaluation.test)
    train = images(config, evaluation.train) if evaluation.train else test
    job = f"{name} of {model}"
    if train is None or test is None:
        return CostEstimate("evaluate", job, (model,), None, None, None)
    seeds = len(evaluation.seeds)
    if isinstance(protocol, TrainedProtocol):
        schedule = protocol.schedule
        trainings = seeds * protocol.num_trainings(backbone)
        seen = schedule.total_steps(train) * schedule.batch_size * trainings
        from_train, from_test = (machine.images(config.datasets[d]) for d in (evaluation.train, evaluation.test))
        learning, testing = protocol_flops(protocol, backbone)
        forward = machine.rate("forward", backbone.name)
        rate = machine.rate("training", backbone.name) if protocol.finetunes else forward
        hours, limit = _passes(seen, from_train, (TRAINING if protocol.finetunes else 1.0) * learning, rate)
        more, _ = _passes(test * getattr(protocol, "crops", 1) * trainings, from_test, testing, forward)
        return CostEstimate("evaluate", job, (model, *evaluation.datasets), hours + more, None, None, limit)
    features = config.evaluated_features(name, model)
    dims = dims_of(backbone, config.features[features].layer, config.features[features].pool)
    assert isinstance(protocol, FeatureProtocol)
    number = classes(config, evaluation.train or evaluation.test)
    hours = protocol.flops(train, test, dims, number) * seeds / machine.rate("products") / 3600
    return CostEstimate(
        "evaluate", job, (features, *evaluation.datasets), hours, None, train * dims * 2 / 1e9, "products"
    )


def _forward_passes(
    config: Config, machine: Machine, backbone: BackboneOptions, data: str, passes: int = 1
) -> tuple[float | None, str]:
    """`_passes` of all images of a dataset; unknown if their number is."""
    n, reading = images(config, data), machine.images(config.datasets[data])
    return _passes(n, reading, passes * flops(backbone), machine.rate("forward", backbone.name)) if n else (None, "")


def _passes(seen: float, reading: float, flop: float, rate: float) -> tuple[float, str]:
    """Hours for `seen` images read at `reading` per second, and whether the device or decoding is the limit."""
    compute, decode = seen * flop / rate / 3600, seen / reading / 3600
    return max(compute, decode), "device" if compute > decode else "decoding"
