"""Student stage: train a network on labels or by a teacher."""

from collections.abc import Sequence
from pathlib import Path

from ssltransfer.artifacts.index import labels_by_name, read_index
from ssltransfer.artifacts.labels import read_labeled_index
from ssltransfer.artifacts.workdir import InputFiles, WorkDir
from ssltransfer.config.entities import Student
from ssltransfer.config.methods import Supervised
from ssltransfer.models.weights import finish_model, start_from
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.fit import fit
from ssltransfer.training.online_knn import online_knn


def run(
    spec: Student,
    *,
    data: Path,
    output: Path,
    labels: Path | None = None,
    val: Path | None = None,
    val_labels: Path | None = None,
    teacher: Path | None = None,
    further_teachers: Sequence[Path] = (),
    features: Path | None = None,
    val_features: Path | None = None,
    init: Path | None = None,
    threads: int | None = None,
) -> None:
    """Train the student and write {output's folder}/backbone.safetensors, backbone.json, curve.jsonl and the manifest.

    Args:
        labels, val_labels: pseudo-labels of the images, for methods that learn them.
        teacher: manifest of the teacher, for methods that run it during training.
        further_teachers: manifests of the method's further teachers, in their order.
        features, val_features: manifests of its precomputed features, for other methods with a teacher.
        init: manifest of the model that the training starts from.
    """
    learned = {"teacher": teacher, "features": features, "val_features": val_features}
    given = {"data": data, "val": val, "labels": labels, "val_labels": val_labels, "init": init, **learned}
    inputs: InputFiles = {**given, "further_teachers": list(further_teachers)}
    with WorkDir("student", output, spec.canonical(), inputs) as work:
        if work.is_cached():
            return
        devices = plan_devices(threads)
        index = read_labeled_index(data, labels)
        held = read_labeled_index(val, val_labels) if val else None
        if held and isinstance(spec.method, Supervised):
            # The validation set may lack a class, or have more of them.
            held = held.with_labels(labels_by_name(index, held, (spec.data, spec.val or "val")), index.classes)
        taught = StudentInputs(spec, index, held, **learned, further_teachers=further_teachers)
        task = STUDENT_METHODS[type(spec.method)](taught)
        summary: dict[str, object] = {}
        if init:
            source = start_from(task.backbone, init)
            summary["init"] = source.digest
            if spec.method.is_self_contained:  # otherwise a pretext task normalizes the images
                task.normalization = source.normalization
        knn = None
        if spec.val_knn and val:  # by true labels
            knn = online_knn(task.backbone, spec.backbone, task.normalization, read_index(val), spec.val_knn, devices)
        fitted = fit(
            task, index, spec.schedule, seed=spec.seed, folder=work.folder, devices=devices, val=held, val_knn=knn
        )
        if devices.rank:
            return
        summary |= {"summary": fitted.summary(task.chance_loss), **spec.schedule.stated(len(index))}
        finish_model(work, task.written(), task.normalization, summary, device=str(devices), **fitted.measured)
