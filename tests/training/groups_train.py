"""One of the processes of tests/training/test_groups.py: trains each case and saves what came out of it."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from turns_tasks import Modulo, pair

from ssltransfer.artifacts.index import read_index
from ssltransfer.training import ddp as ranks
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.fit import TrainingError, fit_members
from ssltransfer.training.launch import leave

CASES: dict[str, tuple[bool, dict[str, object]]] = {
    "in-turns": (False, {"sync_bn": True, "shares": (1, 2)}),
    "at-once": (True, {}),
    "at-once-packs": (True, {"micro_batch_size": 4, "clip_grad_norm": 0.1}),
    "resumed": (True, {"dropout": 0.3}),
    "whole": (True, {"dropout": 0.3}),
}


def main(train: Path, val: Path, folder: Path) -> None:
    devices = plan_devices(1)
    for name, (at_once, options) in CASES.items():
        ranks.BUCKET = 100 if name == "at-once-packs" else 25 << 20
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        os.environ["SSLTRANSFER_CHECKPOINT_STEPS"] = "2"

        def train_all(place: Path = place, at_once: bool = at_once, options: dict[str, object] = options) -> None:
            members = pair(read_index(train), read_index(val), **options)  # type: ignore[arg-type]
            fitted = fit_members(members, 12, folder=place, devices=devices, at_once=at_once)
            weights = {f"{m.name}.{k}": v for m in members for k, v in m.task.state_dict().items()}
            state = {"weights": weights, "curve": fitted.curve, "seen": members[0].task.seen}
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
    leave()


if __name__ == "__main__":
    os.environ.setdefault("SSLTRANSFER_WORKERS", "0")
    main(*map(Path, sys.argv[1:]))
