"""The common loop of evaluations: for each seed, build a task, train it, test it, and collect the metrics."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ssltransfer.artifacts.index import Index
from ssltransfer.config.protocols import TrainedProtocol
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch, load_batches
from ssltransfer.data.transforms import Transform
from ssltransfer.logs import logger
from ssltransfer.protocols.base import EvalContext, EvalResult
from ssltransfer.training.curve import TrainResult
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import fit
from ssltransfer.training.progress import Progress
from ssltransfer.training.task import Task

T = TypeVar("T")
TaskT = TypeVar("TaskT", bound=Task)


@dataclass(frozen=True)
class SeedResult:
    """Result of one seed; the attributes are those of `EvalResult`, with one number per metric."""

    metrics: dict[str, float]
    chance: float
    details: dict[str, Any]
    measured: dict[str, Any] = field(default_factory=dict)


def run_seeds(context: EvalContext, run: Callable[[int, Path], SeedResult], suffix: str = "") -> EvalResult:
    """Metrics of every seed; chance, details and measurements of the first one.

    `run` maps a seed and its work directory, which survives an interruption, to a result. Evaluations with several
    trainings per seed give each a suffix for its work directories.
    """
    results: list[SeedResult] = []
    for seed in context.spec.seeds:
        folder = context.folder / f"seed-{seed}{suffix}"
        folder.mkdir(exist_ok=True)
        result = run(seed, folder)
        logger.info(f"seed {seed}{suffix}: " + ", ".join(f"{k} {v:.3f}" for k, v in result.metrics.items()))
        results.append(result)
    first = results[0]
    values = {name: [result.metrics[name] for result in results] for name in first.metrics}
    return EvalResult(values, first.chance, first.details, first.measured)


def train_and_test(
    context: EvalContext,
    build: Callable[[int], TaskT],
    test: Callable[[TaskT, TrainResult, int], SeedResult],
    *,
    plan: Callable[[TaskT, int], tuple[Index, Schedule]] | None = None,
    val: bool = True,
    suffix: str = "",
) -> EvalResult:
    """Train a task with each seed and test it. Interrupted trainings resume.

    Args:
        context: of the evaluation.
        build: seed -> task with initial weights.
        test: trained task, its learning curve, seed -> result on the test images.
        plan: task, seed -> training images and schedule; default: all images, and the protocol's schedule.
        val: whether to measure the validation loss, on the test images.
        suffix: as for `run_seeds`.
    """

    def run(seed: int, folder: Path) -> SeedResult:
        task = build(seed)
        train, schedule = plan(task, seed) if plan else (context.train, context.options(TrainedProtocol).schedule)
        learned = sum(parameter.numel() for parameter in task.parameters() if parameter.requires_grad)
        logger.info(f"seed {seed}{suffix}: {learned} trainable parameters, {len(train)} training images")
        val_images = context.test if val else None
        trained = fit(task, train, schedule, seed=seed, folder=folder, devices=context.devices, val=val_images)
        return replace(test(task, trained, seed), measured=trained.measured)

    return run_seeds(context, run, suffix)


@torch.inference_mode()
def predict(
    context: EvalContext,
    model: nn.Module,
    forward: Callable[[Batch], T],
    transform: Transform,
    batch_size: int,
    **options: Any,
) -> list[T]:
    """`forward` of each batch of test images, in order, with `model` in evaluation mode and in mixed precision.

    `forward`, `transform`, `batch_size` and `options` are those of `distributed_map`.
    """
    model.eval()
    precision = context.options(TrainedProtocol).schedule.precision

    def step(batch: Batch) -> T:
        with context.devices.autocast(precision):
            return forward(batch)

    return distributed_map(context.test, transform, batch_size, step, context.devices, **options)


def distributed_map(
    index: Index,
    transform: Transform,
    batch_size: int,
    forward: Callable[[Batch], T],
    devices: Devices,
    *,
    what: str = "test",
    seed: int = 0,
    times: int = 1,
) -> list[T]:
    """Results of `forward` for each batch of an index, in order, in every process.

    The batches do not depend on the number of processes, so neither do the results.

    Args:
        index: the images, in this order.
        transform: CPU part.
        batch_size: images per batch; the last one may have fewer.
        forward: batch on the device -> a result that can be pickled, in host memory.
        devices: of this process; all processes call this function.
        what: label of the progress display.
        seed: of the transform's random numbers.
        times: number of passes; `epochs` of a batch is the pass.

    Raises:
        ArtifactError: an image can no longer be read.
    """
    n, world = len(index), devices.world
    spans = [range(start, min(n, start + batch_size)) for start in range(0, n, batch_size)]
    all_keys = ([(sample, again) for sample in span] for again in range(times) for span in spans)
    keys = islice(all_keys, devices.rank, None, world)
    progress = Progress(what, 0, -(-times * len(spans) // world), batch_size * world)
    results = []
    torch.backends.cudnn.benchmark = transform.padding is None
    for batch in load_batches(index, transform, keys, seed=seed, workers=devices.workers, pin=devices.cuda):
        results.append(forward(batch.to(devices.device, devices.copies)))
        progress.step()
        progress.log(f"{n} images" + (f", {times} times" if times > 1 else ""))
    progress.close()
    parts = devices.all_gather(results)
    # The first process has at least as many as any other.
    return [part[turn] for turn in range(len(parts[0])) for part in parts if turn < len(part)]
