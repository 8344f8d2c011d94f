"""Student: a new network that learns from labels. A file a method; this one runs whichever is asked for."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from ssltransfer.artefacts.files import digest_of, write_text
from ssltransfer.artefacts.index import read_index
from ssltransfer.artefacts.work import Work
from ssltransfer.config.entities import Student
from ssltransfer.models.weights import write_model
from ssltransfer.stages.student.base import BuildTask, Given
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.fit import fit


def run(
    spec: Student,
    *,
    data: Path,
    output: Path,
    labels: Path | None = None,
    heldout: Path | None = None,
    heldout_labels: Path | None = None,
    teacher: Path | None = None,
    features: Path | None = None,
    heldout_features: Path | None = None,
    build_task: BuildTask | None = None,
    threads: int | None = None,
) -> None:
    """Train the student and write {output's folder}/trunk.safetensors, trunk.json, curve.jsonl and the manifest.

    A method is a module with `build(given) -> StudentTask`.

    Args:
        spec: what is trained.
        data: index of the training pictures.
        output: manifest.json.
        labels: pseudo-labels of those pictures, where the method learns from them.
        heldout, heldout_labels: pictures on which the loss is also measured.
        teacher: manifest of the model that the method learns from, where it is asked while the student trains.
        features, heldout_features: manifests of what it said of those pictures, where that is read instead.
        build_task: `stages.pretext.build_task`, for methods that learn a pretext task's loss: stages do not import
            each other.
        threads: CPU threads.
    """
    learned = {"labels": labels, "heldout_labels": heldout_labels}
    learned |= {"teacher": teacher, "features": features, "heldout_features": heldout_features}
    inputs = {"data": data, "heldout": heldout, **learned}
    given = {role: [path] if path else [] for role, path in inputs.items()}
    with Work("student", output, spec.canonical(), given) as work:
        if work.already_made():
            return
        devices = plan_devices(threads)
        index = read_index(data)
        held = read_index(heldout) if heldout else None
        module = import_module(f"ssltransfer.stages.student.{spec.method.module}")
        task = module.build(Given(spec, index, held, **learned, build_task=build_task))
        fitted = fit(task, index, spec.schedule, seed=spec.seed, folder=work.folder, devices=devices, heldout=held)
        if devices.rank:
            return
        write_text(output.parent / "curve.jsonl", (work.folder / "curve.jsonl").read_text())
        content = write_model(output.parent, task.written(), task.rule, json.loads(spec.canonical()))
        content |= {"curve": digest_of(output.parent / "curve.jsonl"), "summary": fitted.summary(task.guess)}
        files = ("trunk.safetensors", "trunk.json", "curve.jsonl")
        work.finish(content, files=files, device=str(devices), **fitted.measured)
        (work.folder / "checkpoint.pt").unlink(missing_ok=True)
