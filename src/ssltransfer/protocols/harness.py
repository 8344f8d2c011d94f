"""The common loop of evaluations: for each seed, build a task, train it, test it, and collect the metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ssltransfer.artifacts.index import Index
from ssltransfer.config.protocols import TrainedProtocol
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch
from ssltransfer.data.transforms import Transform
from ssltransfer.logs import logger
from ssltransfer.protocols.base import EvalContext, EvalResult
from ssltransfer.protocols.distributed import distributed_map
from ssltransfer.training.curve import TrainResult
from ssltransfer.training.fit import fit
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

    Args:
        context: of the evaluation.
        run: seed and work directory (kept after an interruption) -> result.
        suffix: of the work directories, for evaluations with several trainings per seed.
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
    train: Callable[[int], Index] | None = None,
    schedule: Callable[[TaskT, Index], Schedule] | None = None,
    val: bool = True,
    suffix: str = "",
) -> EvalResult:
    """Train a task with each seed and test it. Interrupted trainings resume.

    Args:
        context: of the evaluation.
        build: seed -> task with initial weights.
        test: trained task, its learning curve, seed -> result on the test images.
        train: seed -> training images; default: all of them.
        schedule: task, training images -> schedule; default: the protocol's.
        val: whether to measure the validation loss, on the test images.
        suffix: as for `run_seeds`.
    """

    def run(seed: int, folder: Path) -> SeedResult:
        task = build(seed)
        index = train(seed) if train else context.train
        learned = sum(parameter.numel() for parameter in task.parameters() if parameter.requires_grad)
        logger.info(f"seed {seed}{suffix}: {learned} trainable parameters, {len(index)} training images")
        trained = fit(
            task,
            index,
            schedule(task, index) if schedule else context.options(TrainedProtocol).schedule,
            seed=seed,
            folder=folder,
            devices=context.devices,
            val=context.test if val else None,
        )
        result = test(task, trained, seed)
        return SeedResult(result.metrics, result.chance, result.details, trained.measured)

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
    """`forward` of each batch of test images, in order, in evaluation mode and mixed precision.

    Args:
        context: of the evaluation.
        model: put into evaluation mode.
        forward: batch on the device -> a result that can be pickled, in host memory.
        transform, batch_size: how test images are loaded.
        options: `seed` and `times` of `distributed_map`.
    """
    model.eval()
    precision = context.options(TrainedProtocol).schedule.precision

    def step(batch: Batch) -> T:
        with context.devices.autocast(precision):
            return forward(batch)

    return distributed_map(context.test, transform, batch_size, step, context.devices, **options)
