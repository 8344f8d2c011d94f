"""Time and peak memory at N, 2N, 4N and 8N, each in a process of its own."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import images
from benchmarks.harness.measure import Figure, Setting, run_in_process
from ssltransfer.artifacts import features as artifact
from ssltransfer.artifacts.features import FeatureStore
from ssltransfer.artifacts.files import write_json
from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.entities import Features
from ssltransfer.kmeans import PointLoader, assign, kmeans, memory_budget
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import write_model
from ssltransfer.stages import features

STEPS = (1, 2, 4, 8)
EXPONENT, MEMORY = 1.05, 1.1
DIMS, K, ITERATIONS = 256, 100, 5
NOTHING_KEPT = 20 << 20  # bytes: enough for the work of a k-means of these sizes, too few for the points besides
CHUNK_BYTES = 1 << 20  # so that the smallest store has several chunks


def run(setting: Setting) -> Iterator[Figure]:
    """The exponent is the slope of log time over log N. Memory is the rise of the peak by the work, less the data that
    is kept on purpose (points of a k-means that fit; labels and distances), at 8N over that at N.
    """
    n = setting.size(1024, 32)
    drawn = images.draw(setting.folder, 32)
    model = setting.folder / "model" / "manifest.json"
    about = write_model(model.parent, build_backbone(CaffeNet(width_mult=0.125), include_top=False), "imagenet", {})
    write_json(model, {"stage": "pretext", **about})
    for size in [n * step for step in STEPS]:
        images.repeated(drawn, size, setting.folder / f"{size}.parquet")
    yield from _growth(setting, "extraction", n, extract, lambda size: 0)

    n = 25_000  # where NOTHING_KEPT is enough at 8N and too little for the points at N
    for size in [n * step for step in STEPS]:
        _draw_store(setting.folder / f"{size}.zarr", size)
    yield from _growth(setting, "k-means in memory", n, cluster, lambda size: (4 * DIMS + 24) * size)
    yield from _growth(setting, "k-means from the disk", n, cluster_from_disk, lambda size: 24 * size)
    yield from _growth(setting, "labeling", n, label, lambda size: 8 * size)


def _growth(
    setting: Setting, what: str, n: int, work: Callable[[Path, int, int], None], kept: Callable[[int], int]
) -> Iterator[Figure]:
    sizes = [n * step for step in STEPS]
    rounds = [
        [run_in_process(measured, work, setting.folder, size, setting.threads) for size in sizes]
        for _ in range(setting.rounds)
    ]
    seconds = np.array([[one[0] for one in turn] for turn in rounds])
    peaks = np.array([[one[1] for one in turn] for turn in rounds])
    rest = peaks - [kept(size) for size in sizes]
    slopes = [float(np.polyfit(np.log(sizes), np.log(turn), 1)[0]) for turn in seconds]
    case = f"{what}, N = {n}, 2N, 4N, 8N"
    yield Figure(f"{case}: exponent of time", "", slopes, EXPONENT, {"sizes": sizes, "seconds": seconds.tolist()})
    flat = (rest[:, -1] / rest[:, 0]).tolist()
    yield Figure(f"{case}: memory at 8N over N", "", flat, MEMORY, {"sizes": sizes, "bytes": peaks.tolist()})


def measured(work: Callable[[Path, int, int], None], folder: Path, n: int, threads: int) -> tuple[float, int]:
    """Seconds that `work` takes in a fresh process whose imports are over, and bytes that it adds to the peak."""
    torch.set_num_threads(threads)
    artifact.CHUNK_BYTES = CHUNK_BYTES
    before, began = _peak(), time.perf_counter()
    with redirect_stdout(io.StringIO()):
        work(folder, n, threads)
    return time.perf_counter() - began, _peak() - before


def _peak() -> int:
    """Bytes; getrusage's would begin with those of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10


def extract(folder: Path, n: int, threads: int) -> None:
    """The features stage."""
    spec = Features.model_validate({"model": "m", "layer": "conv4", "pool": {"max": 4}})
    data, output = folder / f"{n}.parquet", folder / f"{time.time_ns()}" / "manifest.json"
    features.run(spec, model=folder / "model" / "manifest.json", data=data, output=output, threads=threads)


def cluster(folder: Path, n: int, threads: int) -> None:
    """k-means that keeps its points."""
    kmeans(FeatureStore.open(folder / f"{n}.zarr"), K, iterations=ITERATIONS, tolerance=0, budget=memory_budget())


def cluster_from_disk(folder: Path, n: int, threads: int) -> None:
    """k-means that must read its points again in each iteration."""
    store = FeatureStore.open(folder / f"{n}.zarr")
    made = kmeans(store, K, iterations=ITERATIONS, tolerance=0, budget=NOTHING_KEPT)
    assert made.residency == "disk"


def label(folder: Path, n: int, threads: int) -> None:
    """One pass of the label stage."""
    store = FeatureStore.open(folder / f"{n}.zarr")
    points = PointLoader(
        store, K, normalize=False, device=torch.device("cpu"), budget=memory_budget(), where="drawn", keep=False
    )
    assign(points, torch.from_numpy(store.read(slice(0, K)).astype(np.float32)))


def _draw_store(path: Path, n: int) -> None:
    artifact.CHUNK_BYTES = CHUNK_BYTES
    store = FeatureStore.create(path, n, DIMS, "float16")
    draw = np.random.default_rng(0)
    centers = 2 * draw.standard_normal((K, DIMS), np.float32)
    for chunk in range(store.chunks):
        span = store.span(chunk)
        rows = span.stop - span.start
        store.write(chunk, (centers[draw.integers(0, K, rows)] + draw.standard_normal((rows, DIMS))).astype(np.float16))
