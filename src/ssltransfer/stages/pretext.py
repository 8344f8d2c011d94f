"""Pretext stage: train a pretext task, or build a model that is not trained by gradient descent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssltransfer.artifacts.files import file_digest
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import MultiTask
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import finish_model, start_from
from ssltransfer.tasks.pretext.base import FIXED_MODELS, ModelInputs, Trainable, build_task
from ssltransfer.tasks.pretext.multi_task import together
from ssltransfer.tasks.pretext.snapshot import file_of, save_snapshot
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.fit import fit
from ssltransfer.training.multi_task import TaskRun, fit_multi_task
from ssltransfer.training.online_knn import online_knn


def run(
    spec: Pretext,
    *,
    output: Path,
    data: Path | None = None,
    val: Path | None = None,
    task_data: Sequence[Path] = (),
    model: Path | None = None,
    init: Path | None = None,
    threads: int | None = None,
) -> None:
    """Make the model and write {output's folder}/backbone.safetensors, backbone.json, curve.jsonl and the manifest.

    `task_data` are the indexes of `spec.task_datasets`, `model` is the manifest of the pretext of a snapshot,
    `init` that of the model that the training starts from.
    """
    inputs = {"data": data, "val": val, "task_data": task_data, "model": model, "init": init}
    with WorkDir("pretext", output, spec.canonical(), inputs) as work:
        if work.is_cached():
            return
        devices = plan_devices(threads)
        content: dict[str, object] = {}
        measured: dict[str, object] = {"device": str(devices)}
        if spec.task.is_trainable:
            paths: list[tuple[str | None, Path | None]] = [(spec.data, data), (spec.val, val)]
            paths += zip(spec.task_datasets, task_data, strict=True)
            trained = _trainable(spec, {name: read_index(path) for name, path in paths if name and path})
            assert spec.schedule is not None
            if init:
                content["init"] = start_from(trained.backbone, init).digest

            def snapshot(step: int) -> None:
                if devices.rank == 0:
                    save_snapshot(trained.backbone, work.folder, step)

            options: dict[str, Any] = {
                "folder": work.folder,
                "devices": devices,
                "save_snapshot": snapshot,
                "snapshot_steps": spec.snapshots,
            }
            first = trained.runs[0]
            if isinstance(spec.task, MultiTask):
                total = spec.schedule.total_steps(len(first.index))
                fitted = fit_multi_task(trained.runs, total, synchronous=spec.task.synchronous, **options)
            else:
                if spec.val_knn and first.val is not None:
                    options["val_knn"] = online_knn(
                        trained.backbone, spec.backbone, trained.normalization, first.val, spec.val_knn, devices
                    )
                fitted = fit(first.task, first.index, first.schedule, seed=first.seed, val=first.val, **options)
            if devices.rank:
                return
            # With the backbone's own strides, and without the layers of the task.
            backbone = build_backbone(spec.backbone, include_top=False)
            backbone.load_state_dict(trained.backbone.state_dict())
            rule = trained.normalization
            content |= {"summary": fitted.summary(trained.chance_loss), **trained.content()}
            content |= spec.schedule.stated(len(first.index))
            if spec.snapshots:
                content["snapshots"] = {str(step): file_digest(file_of(work.folder, step)) for step in spec.snapshots}
            measured |= fitted.measured
        else:
            made = FIXED_MODELS[type(spec.task)](spec, ModelInputs(devices, read_index(data) if data else None, model))
            backbone, rule = made.backbone, made.normalization
            content |= made.content
        files = [str(file_of(work.folder, step).relative_to(output.parent)) for step in spec.snapshots]
        finish_model(work, backbone, rule, content, files=files, **measured)


def _trainable(spec: Pretext, images: dict[str, Index]) -> Trainable:
    """The task on its images, or several."""
    if isinstance(spec.task, MultiTask):
        return together(spec, images)
    assert spec.data is not None and spec.schedule is not None
    task = build_task(spec.task, spec.backbone, spec.seed)
    val = images.get(spec.val or "")
    task_run = TaskRun(task, images[spec.data], spec.schedule, spec.seed, val)
    return Trainable([task_run], task.backbone, task.normalization)
