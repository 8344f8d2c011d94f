"""Snapshots of a pretext's backbone during its training, each a separate model."""

from pathlib import Path

from ssltransfer.artifacts.files import ArtifactError, file_digest
from ssltransfer.artifacts.manifest import ModelManifest, read_manifest
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import Snapshot
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone
from ssltransfer.models.state_dicts import load_tensors, read_tensors
from ssltransfer.models.weights import write_weights
from ssltransfer.tasks.pretext.base import FIXED_MODELS, BuiltModel, ModelInputs

FOLDER = "snapshots"  # in the work directory of the pretext


@FIXED_MODELS.register(Snapshot)
def load_snapshot(spec: Pretext, inputs: ModelInputs) -> BuiltModel:
    """The backbone after a step of the training of `inputs.source`.

    Raises:
        ArtifactError: the training has no such snapshot, or the file has changed.
    """
    assert isinstance(spec.task, Snapshot) and inputs.source is not None
    model = inputs.source
    trained = read_manifest(model, ModelManifest)
    file = file_of(model.parent / "work" / trained.work, spec.task.step)
    digest = trained.snapshots.get(str(spec.task.step))
    if digest is None or not file.is_file() or file_digest(file) != digest:
        raise ArtifactError(
            f"{file}: missing or changed since {model} was written; remove {model} and rerun its stage."
        )
    backbone = build_backbone(spec.backbone, include_top=False)
    load_tensors(backbone, read_tensors(file), file, prefix="")
    return BuiltModel(backbone, trained.normalize)


def file_of(folder: Path, step: int) -> Path:
    """File of the snapshot after a step, in the work directory."""
    return folder / FOLDER / f"{step}.safetensors"


def save_snapshot(backbone: Backbone, folder: Path, step: int) -> None:
    """Write the snapshot after a step."""
    file = file_of(folder, step)
    file.parent.mkdir(exist_ok=True)
    write_weights(file, backbone)
