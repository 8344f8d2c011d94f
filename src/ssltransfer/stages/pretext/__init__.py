"""Pretext: a model made without labels. A file a task; this one runs whichever is asked for."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from ssltransfer.artefacts.files import digest_of, write_text
from ssltransfer.artefacts.index import Index, read_index
from ssltransfer.artefacts.work import Work
from ssltransfer.config.entities import Pretext
from ssltransfer.models.build import build_trunk
from ssltransfer.models.weights import write_model
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.fit import fit


def run(
    spec: Pretext, *, output: Path, data: Path | None = None, heldout: Path | None = None, threads: int | None = None
) -> None:
    """Make the model and write {output's folder}/trunk.safetensors, trunk.json, curve.jsonl and the manifest.

    A trained task is a module with `build(options, trunk, seed) -> PretextTask`; one that is not trained has
    `make(spec, index, devices, folder) -> Made`.

    Args:
        spec: what is made.
        output: manifest.json.
        data: index of the training pictures, where the task needs any.
        heldout: index of pictures on which the loss is also measured.
        threads: CPU threads.
    """
    inputs = {"data": [data] if data else [], "heldout": [heldout] if heldout else []}
    with Work("pretext", output, spec.canonical(), inputs) as work:
        if work.already_made():
            return
        devices = plan_devices(threads)
        index = _index(data)
        module = import_module(f"ssltransfer.stages.pretext.{spec.task.module}")
        content: dict[str, object] = {}
        measured: dict[str, object] = {"device": str(devices)}
        if spec.task.trains:
            assert spec.schedule is not None and index is not None
            task = module.build(spec.task, spec.trunk, spec.seed)
            fitted = fit(
                task, index, spec.schedule, seed=spec.seed, folder=work.folder, devices=devices, heldout=_index(heldout)
            )
            if devices.rank:
                return
            # The convolutions under the trunk's own stem; head, jitter and tile stem stay behind.
            trunk = build_trunk(spec.trunk, top=False)
            trunk.load_state_dict(task.trunk.state_dict())
            rule = task.rule
            curve = (work.folder / "curve.jsonl").read_text()
            write_text(output.parent / "curve.jsonl", curve)
            content |= {"curve": digest_of(output.parent / "curve.jsonl"), "summary": fitted.summary(task.guess)}
            measured |= fitted.measured
        else:
            made = module.make(spec, index, devices, work.folder)
            trunk, rule = made.trunk, made.rule
            content |= made.content
        content |= write_model(output.parent, trunk, rule, json.loads(spec.canonical()))
        files = ("trunk.safetensors", "trunk.json", *(["curve.jsonl"] if spec.task.trains else []))
        work.finish(content, files=files, **measured)
        (work.folder / "checkpoint.pt").unlink(missing_ok=True)


def _index(path: Path | None) -> Index | None:
    return read_index(path) if path else None
