"""Student: a new network that learns from labels. A file a method; this one runs whichever is asked for."""

from __future__ import annotations

import json
from pathlib import Path

from ssltransfer.artifacts.files import file_digest, write_text
from ssltransfer.artifacts.labels import read_labeled_index
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.entities import Student
from ssltransfer.models.weights import write_model
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.fit import fit


def run(
    spec: Student,
    *,
    data: Path,
    output: Path,
    labels: Path | None = None,
    val: Path | None = None,
    val_labels: Path | None = None,
    teacher: Path | None = None,
    features: Path | None = None,
    val_features: Path | None = None,
    threads: int | None = None,
) -> None:
    """Train the student and write {output's folder}/backbone.safetensors, backbone.json, curve.jsonl and the manifest.

    Args:
        spec: what is trained.
        data: index of the training images.
        output: manifest.json.
        labels: pseudo-labels of those images, where the method learns from them.
        val, val_labels: images on which the loss is also measured.
        teacher: manifest of the model that the method learns from, where it is asked while the student trains.
        features, val_features: manifests of what it said of those images, where that is read instead.
        threads: CPU threads.
    """
    learned = {"teacher": teacher, "features": features, "val_features": val_features}
    inputs = {"data": data, "val": val, "labels": labels, "val_labels": val_labels, **learned}
    given = {role: [path] if path else [] for role, path in inputs.items()}
    with WorkDir("student", output, spec.canonical(), given) as work:
        if work.is_cached():
            return
        devices = plan_devices(threads)
        index = read_labeled_index(data, labels)
        held = read_labeled_index(val, val_labels) if val else None
        task = STUDENT_METHODS[type(spec.method)](StudentInputs(spec, index, held, **learned))
        fitted = fit(task, index, spec.schedule, seed=spec.seed, folder=work.folder, devices=devices, val=held)
        if devices.rank:
            return
        write_text(output.parent / "curve.jsonl", (work.folder / "curve.jsonl").read_text())
        content = write_model(output.parent, task.written(), task.normalization, json.loads(spec.canonical()))
        content |= {"curve": file_digest(output.parent / "curve.jsonl"), "summary": fitted.summary(task.chance_loss)}
        files = ("backbone.safetensors", "backbone.json", "curve.jsonl")
        work.finish(content, files=files, device=str(devices), **fitted.measured)
        (work.folder / "checkpoint.pt").unlink(missing_ok=True)
