"""What each job of a configuration costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from ssltransfer.artifacts.index import read_index
from ssltransfer.config import Config
from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.entities import Pretext, Student
from ssltransfer.config.formats import Video
from ssltransfer.config.methods import Compress2q
from ssltransfer.config.protocols import (
    ClusterAlignment,
    FinetuneFromLayer,
    Knn,
    LogReg,
    Retrieval,
    TrainedProtocol,
)
from ssltransfer.config.tasks import Hog, MultiTask
from ssltransfer.models.weights import GRID
from ssltransfer.planning.machine import Machine
from ssltransfer.planning.networks import (
    ASPECT,
    dims_of,
    flops,
    parameters,
    protocol_flops,
    task_flops,
    training_memory,
)
from ssltransfer.stages.cache import cached_pixels

CHECKED_PER_CORE = 900.0  # images a second: the index's strict decoding
FLOW_PIXELS = 7e6  # a second and core: dense flow, camera and tracks between two frames
TRAINING = 3.0  # forward and backward, in forwards


@dataclass(frozen=True)
class CostEstimate:
    """Of one job; None where the number of images is unknown.

    Attributes:
        needs: names of models, clusterings, features and datasets.
        hours: of one device (or of the CPU cores, if decoding is the limit).
        disk_gb: kept on disk.
        memory_gb: host or device memory for the data that the job keeps at hand.
        limit: what the hours are spent on.
    """

    stage: str
    name: str
    needs: tuple[str, ...]
    hours: float | None
    disk_gb: float | None
    memory_gb: float | None
    limit: str = ""


def images(config: Config, dataset: str) -> int | None:
    """How many images (of videos: clips) a dataset has: as indexed, as limited, or as published."""
    entry = config.datasets[dataset]
    index = Path(config.results) / ("motion" if isinstance(entry, Video) else "index") / f"{dataset}.parquet"
    if index.is_file():
        return int(pq.read_metadata(index).num_rows)
    if isinstance(entry, Video):
        return entry.num_images_hint
    return entry.estimated_num_images


def estimate(config: Config, machine: Machine) -> Iterator[CostEstimate]:
    """A cost for every job, in the order of the stages."""
    for name, dataset in config.datasets.items():
        n = images(config, name)
        decoded = n * dataset.motion.clip_stride if n and isinstance(dataset, Video) else n
        hours = decoded / CHECKED_PER_CORE / machine.cores / 3600 if decoded else None
        yield CostEstimate("index", name, (), hours, n * 1e-7 if n else None, None, "decoding")
    for name, dataset in config.datasets.items():
        if isinstance(dataset, Video):
            n = images(config, name)
            flows = min(dataset.motion.clip_stride, dataset.motion.clip_length - 1)
            pixels = math.prod(dataset.motion.size)
            hours = n * flows * pixels / FLOW_PIXELS / machine.cores / 3600 if n else None
            disk = n * pixels * dataset.motion.cache.bytes_per_pixel / 1e9 if n else None
            yield CostEstimate("motion", name, (name,), hours, disk, None, "optical flow")
        if dataset.cache:
            n = images(config, name)
            hours = n / machine.images(None) / 3600 if n else None
            yield CostEstimate("cache", name, (name,), hours, _cache_gb(config, name), None, "decoding")
    for name, pretext in config.pretexts.items():
        yield _pretext(config, machine, name, pretext)
    for name, features in config.features.items():
        backbone = config.model(features.model).backbone
        dims = dims_of(backbone, features.layer, features.pool)
        size = 2 if features.precision == "float16" else 4
        for data in sorted(config.datasets_of_features(name)):
            n = images(config, data)
            reading = machine.images(config.datasets[data])
            forward = flops(backbone) * (GRID**2 if features.patches else 1)
            hours, limit = _passes(n, reading, forward, machine.rate("forward", backbone.name)) if n else (None, "")
            disk = n * dims * size / 1e9 if n else None
            yield CostEstimate("features", f"{name} on {data}", (features.model, data), hours, disk, None, limit)
    for name, cluster in config.clusters.items():
        source = config.features[cluster.features]
        dims = dims_of(config.model(source.model).backbone, source.layer, source.pool)
        n = images(config, cluster.data)
        work = 2.0 * n * dims * cluster.k * cluster.max_iter if n else None
        hours = work / machine.rate("products") / 3600 if work else None
        memory = n * dims * 2 / 1e9 if n else None
        yield CostEstimate(
            "cluster", name, (cluster.features, cluster.data), hours, cluster.k * dims * 4e-9, memory, "products"
        )
    for cluster_name, data in sorted(config.labels()):
        n = images(config, data)
        made_of = config.clusters[cluster_name].features
        hours, limit = (0.0, "") if n else (None, "")
        if not config.reads_features(cluster_name, data):
            made_of = config.features[made_of].model
            backbone, reading = config.model(made_of).backbone, machine.images(config.datasets[data])
            hours, limit = (
                _passes(n, reading, flops(backbone), machine.rate("forward", backbone.name)) if n else (None, "")
            )
        disk = n * 5e-8 if n else None
        yield CostEstimate(
            "label", f"{cluster_name} on {data}", (cluster_name, made_of, data), hours, disk, None, limit
        )
    for name, student in config.students.items():
        n = images(config, student.data)
        learned = getattr(student.method, "cluster", None) or config.teacher_features_of(name)
        teacher = None if learned else getattr(student.method, "teacher", None)
        needs = tuple(filter(None, (learned or teacher, student.data)))
        seen = student.schedule.total_steps(n) * student.schedule.batch_size if n else None
        reading = machine.images(config.datasets[student.data])
        work = _student_flops(student, config.model(teacher).backbone if teacher else None)
        hours, limit = (
            _passes(seen, reading, work, machine.rate("training", student.backbone.name)) if seen else (None, "")
        )
        disk = parameters(student.backbone, include_top=student.method.is_self_contained) * 4e-9
        yield CostEstimate(
            "student", name, needs, hours, disk, training_memory(student.backbone, student.schedule.batch_size), limit
        )
    for name, models in config.rows.items():
        for model in models:
            yield _evaluation(config, machine, name, model)


def _student_flops(student: Student, teacher: BackboneOptions | None) -> float:
    """CostEstimate of an image in training: the student's own, and what is computed beside it."""
    part = student.pretext
    if part is not None and teacher is not None:  # both see the task's inputs
        return TRAINING * task_flops(part) + task_flops(part.model_copy(update={"backbone": teacher}))
    work = TRAINING * flops(student.backbone, include_top=True)
    # A slow copy sees every view once more.
    work += flops(student.backbone) if isinstance(student.method, Compress2q) else 0.0
    return work + (flops(teacher) if teacher else 0.0)


def _cache_gb(config: Config, name: str) -> float | None:
    """Of a dataset's cache: from its index if it was made, else from the usual shape of an image."""
    options, n = config.datasets[name].cache, images(config, name)
    if options is None or n is None:
        return None
    path = Path(config.results) / "index" / f"{name}.parquet"
    short = min(options.short_side, getattr(config.datasets[name], "size", options.short_side))
    pixels = cached_pixels(read_index(path), options).sum() if path.is_file() else n * short**2 * ASPECT
    return float(pixels) * options.bytes_per_pixel / 1e9


def _pretext(config: Config, machine: Machine, name: str, pretext: Pretext) -> CostEstimate:
    disk = parameters(pretext.backbone, include_top=False) * 4e-9 * (1 + len(pretext.snapshots))
    needs = tuple(filter(None, (pretext.data, getattr(pretext.task, "source", None))))
    if not pretext.task.is_trainable:
        sampled = pretext.task.num_descriptors if isinstance(pretext.task, Hog) else 0
        work = 2.0 * sampled * 36 * getattr(pretext.backbone, "vocabulary_size", 0) * 20
        return CostEstimate("pretext", name, needs, work / machine.rate("products") / 3600, disk, sampled * 144e-9)
    return _training(config, machine, name, pretext, disk)


def _training(config: Config, machine: Machine, name: str, pretext: Pretext, disk: float) -> CostEstimate:
    """Of a task, or of several with their shares of the steps."""
    parts = pretext.parts
    needs = tuple(dict.fromkeys(part.data for part in parts.values() if part.data))
    schedules = {member: part.schedule for member, part in parts.items() if part.schedule is not None}
    shares = dict.fromkeys(parts, 1.0)
    if isinstance(pretext.task, MultiTask):
        shares = pretext.task.task_weights({member: schedule.batch_size for member, schedule in schedules.items()})
    hours, memory, limits = 0.0, 0.0, []
    for member, part in parts.items():
        schedule, n = schedules[member], images(config, part.data) if part.data else None
        memory = max(memory, training_memory(part.backbone, schedule.batch_size))
        if n is None and schedule.steps is None:
            return CostEstimate("pretext", name, needs, None, disk, None)
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
        trainings = seeds * (
            len(protocol.layers or backbone.base_layers) if isinstance(protocol, FinetuneFromLayer) else 1
        )
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
    work = 2.0 * train * test * dims
    if isinstance(protocol, ClusterAlignment):
        work = 2.0 * train * dims * (protocol.k or 1000) * protocol.max_iter
    elif isinstance(protocol, LogReg):
        fits = 1 + len(protocol.l2) if isinstance(protocol.l2, tuple) else 1
        work = 4.0 * train * dims * 1000 * protocol.max_iter * fits
    else:
        assert isinstance(protocol, Knn | Retrieval)
    hours = work * seeds / machine.rate("products") / 3600
    return CostEstimate(
        "evaluate", job, (features, *evaluation.datasets), hours, None, train * dims * 2 / 1e9, "products"
    )


def _passes(seen: float, reading: float, flop: float, rate: float) -> tuple[float, str]:
    """Hours for `seen` images read at `reading` a second, and whether the device or the decoding limits them."""
    compute, decode = seen * flop / rate / 3600, seen / reading / 3600
    return max(compute, decode), "device" if compute > decode else "decoding"
