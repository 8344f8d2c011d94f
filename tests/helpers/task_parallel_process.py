"""One of the processes of test_task_parallel.py: trains each case and saves the result."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from ssltransfer.artifacts.index import read_index
from ssltransfer.training import task_parallel
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.launch import shutdown
from ssltransfer.training.multi_task import fit_multi_task
from ssltransfer.training.task import TrainingError
from tests.helpers.modulo_tasks import Modulo, pair

CASES: dict[str, tuple[bool, dict[str, object]]] = {
    "in-turns": (False, {"sync_bn": True, "shares": (1, 2)}),
    "at-once": (True, {}),
    "at-once-packs": (True, {"micro_batch_size": 4, "clip_grad_norm": 0.1}),
    "resumed": (True, {"dropout": 0.3}),
    "whole": (True, {"dropout": 0.3}),
}


def main(train: Path, val: Path, folder: Path) -> None:
    devices = plan_devices(1)
    for name, (synchronous, options) in CASES.items():
        task_parallel.BUCKET_BYTES = 100 if name == "at-once-packs" else 25 << 20
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        os.environ["SSLTRANSFER_CHECKPOINT_STEPS"] = "2"

        def train_all(
            place: Path = place, synchronous: bool = synchronous, options: dict[str, object] = options
        ) -> None:
            runs = pair(read_index(train), read_index(val), **options)  # type: ignore[arg-type]
            fitted = fit_multi_task(runs, 12, folder=place, devices=devices, synchronous=synchronous)
            weights = {f"{m.name}.{k}": v for m in runs for k, v in m.task.state_dict().items()}
            state = {"weights": weights, "curve": fitted.curve, "seen": runs[0].task.seen}
            torch.save(state, place.parent / f"{place.name}-{devices.rank}.pt")

        if name == "resumed":

            def cut(task: Modulo, step: int) -> None:
                if step == 7:
                    raise TrainingError("cut off")

            Modulo.after_step = cut  # type: ignore[method-assign, assignment]
            with contextlib.suppress(TrainingError):
                train_all()
            del Modulo.after_step
        train_all()
    shutdown()


if __name__ == "__main__":
    os.environ.setdefault("SSLTRANSFER_WORKERS", "0")
    main(*map(Path, sys.argv[1:]))
