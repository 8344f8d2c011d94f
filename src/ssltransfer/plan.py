"""What a configuration will make, what hangs on what, and what it will cost, before anything runs.

The estimate is arithmetic: multiply-adds of the networks (counted on their shapes, no weights are made), pictures to
decode, numbers to keep. What a device sustains is an assumption that can be given; nothing here is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import pyarrow.parquet as pq
import torch
from torch.utils.flop_counter import FlopCounterMode

from ssltransfer.artefacts.index import read_index
from ssltransfer.config import Config
from ssltransfer.config.entities import Pretext
from ssltransfer.config.formats import Dataset
from ssltransfer.config.protocols import ClusterAlignment, LinearLayers, Logistic, Neighbours, VocClassification
from ssltransfer.config.tasks import Hog, Jigsaw, JigsawPP, RelativePosition, Rotation
from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.models.build import build_tile_trunk, build_trunk
from ssltransfer.stages.cache import packed_pixels

DECODED_PER_CORE = 350.0  # pictures a second: 500x375 JPEG, decoded, resized and cropped to uint8
CACHED_PER_CORE = {"jpeg": 1100.0, "raw": 5500.0}  # the same from a cache of short side 256
CHECKED_PER_CORE = 900.0  # pictures a second: the index's strict decoding
ASPECT = 4 / 3  # long by short side of a picture that nobody has seen yet
TRAINING = 3.0  # forward and backward, in forwards


@dataclass(frozen=True)
class Machine:
    """What a node is assumed to sustain.

    Attributes:
        tflops: of one device on convolutions, in 10^12 multiply-adds x 2 a second.
        cores: CPU cores that decode.
        decoded: pictures a second that one of them gives.
    """

    tflops: float = 30.0
    cores: int = 16
    decoded: float = DECODED_PER_CORE

    def reading(self, dataset: Dataset) -> Machine:
        """The same, at the pace of this dataset's files or of its cache."""
        if dataset.cache is None:
            return self
        pace = CACHED_PER_CORE[dataset.cache.format] * (256 / dataset.cache.short) ** 2
        return replace(self, decoded=max(DECODED_PER_CORE, min(pace, CACHED_PER_CORE["raw"])))


@dataclass(frozen=True)
class Cost:
    """Of one job; None where the number of pictures is unknown.

    Attributes:
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


def print_plan(config: Config, machine: Machine | None = None) -> None:
    """Print the named things with what they hang on, and what each stage will cost."""
    machine = machine or Machine()
    costs = list(estimate(config, machine))
    for stage in dict.fromkeys(cost.stage for cost in costs):
        print(f"\n{stage}")
        rows = [cost for cost in costs if cost.stage == stage]
        width = min(48, max(len(cost.name) for cost in rows))
        for cost in rows:
            made = " (by itself)" if cost.name.split(" on ")[0] in config.derived else ""
            needs = f"  <- {', '.join(cost.needs)}" if cost.needs else ""
            print(f"  {cost.name:<{width}} {_hours(cost.hours):>9} {_size(cost.disk_gb):>9}{made}{needs}")
    print(f"\n{'stage':<10} {'jobs':>5} {'hours':>10} {'disk':>10} {'memory of the largest job':>26}  limited by")
    total_hours, total_disk = 0.0, 0.0
    for stage in dict.fromkeys(cost.stage for cost in costs):
        rows = [cost for cost in costs if cost.stage == stage]
        hours, disk = (sum(filter(None, (getattr(c, key) for c in rows))) for key in ("hours", "disk_gb"))
        memory = max((c.memory_gb for c in rows if c.memory_gb is not None), default=None)
        limits = ", ".join(dict.fromkeys(c.limit for c in rows if c.limit))
        print(f"{stage:<10} {len(rows):>5} {_hours(hours):>10} {_size(disk):>10} {_size(memory):>26}  {limits}")
        total_hours, total_disk = total_hours + hours, total_disk + disk
    print(f"{'all':<10} {len(costs):>5} {_hours(total_hours):>10} {_size(total_disk):>10}")
    unknown = sorted({name for name in config.datasets if pictures(config, name) is None})
    if unknown:
        print(f"Not counted: jobs on {', '.join(unknown)} (unknown size: index them first, or give `expected`).")
    for line in enlarged(config):
        print(line)
    print(
        f"Assumed, not measured: one device at {machine.tflops:g} TFLOP/s, {machine.cores} cores decoding "
        f"{DECODED_PER_CORE:g} pictures/s each (caches: more); hours are of one device. Change with --tflops and "
        "--cores."
    )


def pictures(config: Config, dataset: str) -> int | None:
    """How many pictures a dataset has: as indexed, as limited, or as published."""
    index = Path(config.results) / "index" / f"{dataset}.parquet"
    if index.is_file():
        return int(pq.read_metadata(index).num_rows)
    entry = config.datasets[dataset]
    known = entry.published
    return min(filter(None, (known, entry.limit)), default=None)


def estimate(config: Config, machine: Machine) -> Iterator[Cost]:
    """A cost for every job, in the order of the stages."""
    for name in config.datasets:
        n = pictures(config, name)
        hours = n / CHECKED_PER_CORE / machine.cores / 3600 if n else None
        yield Cost("index", name, (), hours, n * 1e-7 if n else None, None, "decoding")
    for name, dataset in config.datasets.items():
        if dataset.cache:
            n = pictures(config, name)
            hours = n / DECODED_PER_CORE / machine.cores / 3600 if n else None
            yield Cost("cache", name, (name,), hours, _packed_gb(config, name), None, "decoding")
    for name, pretext in config.pretexts.items():
        yield _pretext(config, machine, name, pretext)
    for name, features in config.features.items():
        trunk = config.model(features.model).trunk
        dims = _dims(trunk, features.layer, features.pool.max or features.pool.avg if features.pool else None)
        size = 2 if features.precision == "float16" else 4
        for data in sorted(config.datasets_of_features(name)):
            n = pictures(config, data)
            reading = machine.reading(config.datasets[data])
            hours, limit = _passes(reading, n, flops(trunk), 1) if n else (None, "")
            disk = n * dims * size / 1e9 if n else None
            yield Cost("features", f"{name} on {data}", (features.model, data), hours, disk, None, limit)
    for name, cluster in config.clusters.items():
        source = config.features[cluster.features]
        pool = source.pool
        dims = _dims(config.model(source.model).trunk, source.layer, pool.max or pool.avg if pool else None)
        n = pictures(config, cluster.data)
        work = 2.0 * n * dims * cluster.k * cluster.iterations if n else None
        hours = work / (machine.tflops * 1e12) / 3600 if work else None
        memory = n * dims * 2 / 1e9 if n else None
        yield Cost(
            "cluster", name, (cluster.features, cluster.data), hours, cluster.k * dims * 4e-9, memory, "products"
        )
    for cluster_name, data in sorted(config.labels()):
        n = pictures(config, data)
        made_of = config.clusters[cluster_name].features
        hours, limit = (0.0, "") if n else (None, "")
        if not config.reads_features(cluster_name, data):
            made_of = config.features[made_of].model
            reading = machine.reading(config.datasets[data])
            hours, limit = _passes(reading, n, flops(config.model(made_of).trunk), 1) if n else (None, "")
        disk = n * 5e-8 if n else None
        yield Cost("label", f"{cluster_name} on {data}", (cluster_name, made_of), hours, disk, None, limit)
    for name, student in config.students.items():
        n = pictures(config, student.data)
        needs = tuple(filter(None, (getattr(student.method, "cluster", None), student.data)))
        seen = student.schedule.total_steps(n) * student.schedule.batch if n else None
        reading = machine.reading(config.datasets[student.data])
        hours, limit = _passes(reading, seen, flops(student.trunk, top=True), TRAINING) if seen else (None, "")
        disk = parameters(student.trunk, top=True) * 4e-9
        yield Cost("student", name, needs, hours, disk, _training_memory(student.trunk, student.schedule.batch), limit)
    for name, models in config.rows.items():
        for model in models:
            yield _evaluation(config, machine, name, model)


def enlarged(config: Config) -> Iterator[str]:
    """A line for each cache whose pictures are smaller than somebody wants them, and so are enlarged again."""
    for name, dataset in config.datasets.items():
        # Where all pictures are that small, the files would be enlarged too.
        if dataset.cache is None or getattr(dataset, "size", math.inf) <= dataset.cache.short:
            continue
        short = dataset.cache.short
        wanted = dict.fromkeys(f"{who} ({side})" for who, data, side in _views(config) if data == name and side > short)
        if wanted:
            yield f"The cache of {name} has a short side of {short} pixels and is enlarged by {', '.join(wanted)}."


def _views(config: Config) -> Iterator[tuple[str, str | None, int]]:
    """(stage/name, dataset, short side in pixels) of everything that reads pictures."""
    for name, pretext in config.pretexts.items():
        side = getattr(pretext.task, "resize", pretext.trunk.short_side)
        if isinstance(pretext.task, RelativePosition):
            side = math.ceil(math.sqrt(pretext.task.pixels[1]))
        yield from ((f"pretext/{name}", data, side) for data in (pretext.data, pretext.heldout))
    for name, features in config.features.items():
        side = config.model(features.model).trunk.short_side
        yield from ((f"features/{name}", data, side) for data in sorted(config.datasets_of_features(name)))
    for pair in sorted(config.labels()):
        if not config.reads_features(*pair):
            entry = config.features[config.clusters[pair[0]].features]
            yield f"label/{pair[0]}", pair[1], config.model(entry.model).trunk.short_side
    for name, student in config.students.items():
        yield from ((f"student/{name}", data, student.trunk.short_side) for data in (student.data, student.heldout))
    for name, models in config.rows.items():
        evaluation = config.evaluations[name]
        if evaluation.protocol.reads == "features":
            continue
        side = max(config.model(model).trunk.short_side for model in models)
        yield from ((f"evaluate/{name}", data, side) for data in (evaluation.train, evaluation.test))


def _packed_gb(config: Config, name: str) -> float | None:
    """Of a dataset's cache: from its index if it was made, else from the usual shape of a picture."""
    options, n = config.datasets[name].cache, pictures(config, name)
    if options is None or n is None:
        return None
    path = Path(config.results) / "index" / f"{name}.parquet"
    short = min(options.short, getattr(config.datasets[name], "size", options.short))
    pixels = packed_pixels(read_index(path), options).sum() if path.is_file() else n * short**2 * ASPECT
    return float(pixels) * options.bytes_a_pixel / 1e9


def _pretext(config: Config, machine: Machine, name: str, pretext: Pretext) -> Cost:
    n = pictures(config, pretext.data) if pretext.data else None
    disk = parameters(pretext.trunk, top=False) * 4e-9
    needs = tuple(filter(None, (pretext.data,)))
    if not pretext.task.trains:
        sampled = pretext.task.sampled if isinstance(pretext.task, Hog) else 0
        work = 2.0 * sampled * 36 * getattr(pretext.trunk, "words", 0) * 20
        return Cost("pretext", name, needs, work / (machine.tflops * 1e12) / 3600, disk, sampled * 144e-9)
    assert pretext.schedule is not None
    if n is None and pretext.schedule.steps is None:
        return Cost("pretext", name, needs, None, disk, None)
    seen = pretext.schedule.total_steps(n or 1) * pretext.schedule.batch
    reading = machine.reading(config.datasets[pretext.data]) if pretext.data else machine
    hours, limit = _passes(reading, seen, _task_flops(pretext), TRAINING)
    return Cost("pretext", name, needs, hours, disk, _training_memory(pretext.trunk, pretext.schedule.batch), limit)


def _evaluation(config: Config, machine: Machine, name: str, model: str) -> Cost:
    evaluation = config.evaluations[name]
    protocol, trunk = evaluation.protocol, config.model(model).trunk
    train, test = pictures(config, evaluation.train), pictures(config, evaluation.test)
    job = f"{name} of {model}"
    if train is None or test is None:
        return Cost("evaluate", job, (model,), None, None, None)
    seeds = len(evaluation.seeds)
    if isinstance(protocol, LinearLayers | VocClassification):
        factor = 1.0 if isinstance(protocol, LinearLayers) else TRAINING
        seen = protocol.schedule.total_steps(train) * protocol.schedule.batch
        reading = {data: machine.reading(config.datasets[data]) for data in (evaluation.train, evaluation.test)}
        hours, limit = _passes(reading[evaluation.train], seen * seeds, flops(trunk), factor)
        more, _ = _passes(reading[evaluation.test], test * protocol.crops * seeds, flops(trunk), 1)
        return Cost("evaluate", job, (model, evaluation.train, evaluation.test), hours + more, None, None, limit)
    features = config.evaluated_features(name, model)
    dims = _dims(trunk, config.features[features].layer, _side(config, features))
    work = 2.0 * train * test * dims
    if isinstance(protocol, ClusterAlignment):
        work = 2.0 * train * dims * (protocol.k or 1000) * protocol.iterations
    elif isinstance(protocol, Logistic):
        work = 4.0 * train * dims * 1000 * protocol.iterations
    else:
        assert isinstance(protocol, Neighbours)
    hours = work * seeds / (machine.tflops * 1e12) / 3600
    return Cost("evaluate", job, (features,), hours, None, train * dims * 2 / 1e9, "products")


def _side(config: Config, features: str) -> int | None:
    pool = config.features[features].pool
    return (pool.max or pool.avg) if pool else None


def _passes(machine: Machine, seen: float, per_picture: float, factor: float) -> tuple[float, str]:
    """Hours for `seen` pictures, and whether the device or the decoding limits them."""
    compute = seen * per_picture * factor / (machine.tflops * 1e12) / 3600
    decode = seen / (machine.decoded * machine.cores) / 3600
    return max(compute, decode), "device" if compute > decode else "decoding"


def _task_flops(pretext: Pretext) -> float:
    """Forward cost of one picture under a task, in floating-point operations."""
    task, trunk = pretext.task, pretext.trunk
    if isinstance(task, Jigsaw | JigsawPP):
        return 9 * _tile_flops(trunk, task.tiles.tile, task.tiles.stem_stride)
    if isinstance(task, RelativePosition):
        across = max(2, task.canvas // (task.patch + task.gap))
        return task.grids * across**2 * _tile_flops(trunk, task.patch, task.stem_stride or trunk.stem_stride)
    return flops(trunk) * (4 if isinstance(task, Rotation) else 1)


@lru_cache
def flops(trunk: TrunkOptions, top: bool = False) -> float:
    """Floating-point operations (two a multiply-add) of one forward pass of one picture."""
    if trunk.name == "hog-words":
        side = trunk.size // trunk.cell - 1  # type: ignore[attr-defined]
        return 2.0 * side**2 * 36 * trunk.words  # type: ignore[attr-defined]
    with torch.device("meta"):
        network = build_trunk(trunk, top=top)
    return _count(network, trunk.size)


@lru_cache
def _tile_flops(trunk: TrunkOptions, tile: int, stem_stride: int | None) -> float:
    with torch.device("meta"):
        network = build_tile_trunk(trunk, seed=0, stem_stride=stem_stride)
    return _count(network, tile)


def _count(network: torch.nn.Module, size: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.empty(1, 3, size, size, device="meta"))
    return float(counter.get_total_flops())


@lru_cache
def parameters(trunk: TrunkOptions, top: bool) -> int:
    """Number of parameters."""
    with torch.device("meta"):
        return sum(value.numel() for value in build_trunk(trunk, top=top).state_dict().values())


@lru_cache
def _shapes(trunk: TrunkOptions) -> dict[str, tuple[int, ...]]:
    if trunk.name == "hog-words":
        return {"words": (trunk.words,)}  # type: ignore[attr-defined]
    with torch.device("meta"):
        return build_trunk(trunk, top=True).shapes()


def _dims(trunk: TrunkOptions, layer: str, side: int | None) -> int:
    shape = _shapes(trunk)[layer]
    return shape[0] * side**2 if side and len(shape) == 3 else math.prod(shape)


def _training_memory(trunk: TrunkOptions, batch: int) -> float:
    """GB on the device: weights, gradients and momenta, and the activations of a batch with their gradients."""
    activations = sum(math.prod(shape) for shape in _shapes(trunk).values())
    return (parameters(trunk, True) * 12 + activations * batch * 4 * 3) / 1e9


def _hours(hours: float | None) -> str:
    if hours is None:
        return "?"
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s" if hours * 3600 >= 0.5 else "< 1 s"
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.1f} h"


def _size(gigabytes: float | None) -> str:
    if gigabytes is None:
        return "-"
    if gigabytes < 0.001:
        return "< 1 MB"
    return f"{gigabytes * 1000:.0f} MB" if gigabytes < 1 else f"{gigabytes:.1f} GB"
