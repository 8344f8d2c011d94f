"""Imported weights: a model from a state dict."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError, file_digest
from ssltransfer.config.backbones import AnyBackbone, BackboneOptions, Timm
from ssltransfer.config.backbones.exported import exported_view
from ssltransfer.config.base import MeanStd
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import Imported
from ssltransfer.config.weights_metadata import backbone_difference, read_metadata
from ssltransfer.logs import logger
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone
from ssltransfer.models.checkpoint_formats import endings, rename, renamed
from ssltransfer.models.exported import Exported, require_independent_images
from ssltransfer.models.fetched_weights import cached_file, fetch_weights
from ssltransfer.models.libraries import (
    converted_by_timm,
    model_of_torchvision,
    normalizations_of_timm,
    timm_models_with_registers,
)
from ssltransfer.models.normalize import Normalize
from ssltransfer.models.state_dicts import by_order, match_tensors, read_tensors
from ssltransfer.models.weights import require_activations, verify_activations
from ssltransfer.tasks.pretext.base import FIXED_MODELS, BuiltModel, ModelInputs

BYTES = MeanStd(mean=[0.0] * 3, std=[1 / 255] * 3)
"""Normalization of networks that take values from 0 to 255."""


@FIXED_MODELS.register(Imported)
def import_weights(spec: Pretext, inputs: ModelInputs) -> BuiltModel:
    """The backbone with the weights of the file, with fully-connected layers if the file has any of them.

    A file whose tensors have other names is matched by order and shape if all of them agree. A file of this package
    contains its normalization and activations, which are verified.

    Raises:
        ArtifactError: the file is missing or has other content than tensors, a tensor is missing or has another shape,
            or the backbone or the task's normalization differs from the file's.
    """
    assert isinstance(spec.task, Imported)
    if spec.task.is_exported:
        return _exported(spec, spec.task)
    task, file = spec.task, _file_of(spec.task)
    backbone, tensors, matched = _matched(spec.backbone, task, file)
    backbone.load_state_dict(tensors, strict=False)
    logger.info(f"{file}: {matched}")
    content, about = {"file": file_digest(file), "matched": matched}, read_metadata(file)
    if task.url:
        content["source"] = task.url
    normalization = _normalization(spec.backbone, task.normalize, file, about)
    if about is None:
        require_activations(backbone, normalization, file)
    else:
        verify_activations(backbone, about, file)
    return BuiltModel(backbone, normalization, content)


def check_weights(spec: Pretext) -> None:
    """Check an `Imported` pretext without building its network: the file can be read, and its tensors match.

    Raises:
        ArtifactError: as `import_weights` does, except for activations that differ.
    """
    assert isinstance(spec.task, Imported)
    if spec.task.is_exported:
        _exported(spec, spec.task)
        return
    if spec.task.url and spec.task.sha256 and not cached_file(spec.task.url, spec.task.sha256).is_file():
        return  # the job fetches it
    file = _file_of(spec.task)
    with torch.device("meta"):
        _matched(spec.backbone, spec.task, file)
    _normalization(spec.backbone, spec.task.normalize, file, read_metadata(file))


def _file_of(task: Imported) -> Path:
    """The file of weights, fetched if it is a URL."""
    if task.file is not None:
        return task.file.checked()
    assert task.url is not None and task.sha256 is not None
    return fetch_weights(task.url, task.sha256)


def _exported(spec: Pretext, task: Imported) -> BuiltModel:
    """A network of a .pt2 or .onnx file.

    Raises:
        ArtifactError: its normalization is unknown, or its features are constant or not finite.
        LayerError: it is not a network, does not return (B, D), or its features depend on the batch.
    """
    assert task.file is not None
    file = task.file.checked()
    included = exported_view(file) is not None
    if included and task.normalize not in (None, BYTES):
        raise ArtifactError(f"{file}: the network includes its normalization; remove `normalize` of the task.")
    normalization = BYTES if included else task.normalize
    if normalization is None:
        raise ArtifactError(
            f"{file}: state `normalize` of the task, such as imagenet; for a network that takes values from 0 to 255: "
            f"{json.dumps(BYTES)}."
        )
    backbone = build_backbone(spec.backbone, include_top=True)
    assert isinstance(backbone, Exported)
    require_independent_images(backbone)
    require_activations(backbone, normalization, file)
    dims = backbone.shapes()["output"][0]
    matched = f"exported network, {dims} features per image"
    logger.info(f"{file}: {matched}; images are normalized by `{normalization}`.")
    return BuiltModel(backbone, normalization, {"file": task.file.digest, "matched": matched})


def _matched(options: AnyBackbone, task: Imported, file: Path) -> tuple[Backbone, dict[str, Tensor], str]:
    """The backbone, its tensors in the file, and one line about them."""
    if difference := backbone_difference(file, options):
        raise ArtifactError(difference)
    backbone = build_backbone(options, include_top=True)
    tensors = renamed(rename(read_tensors(file), task.rename, file), backbone.state_dict())
    convolutions = build_backbone(options, include_top=False)
    by_name = {key for key in convolutions.state_dict() if not key.endswith("num_batches_tracked")}
    note = ""
    if not by_name <= endings(tensors):
        converted = converted_by_timm(backbone, tensors)
        if converted is not None and by_name <= converted.keys():
            tensors, note = converted, ", converted by timm from the names of the publisher"
    if task.prefix is None and not by_name <= endings(tensors):
        for candidate in (backbone, convolutions):
            if ordered := by_order(tensors, candidate.state_dict()):
                names = {id(value): name for name, value in tensors.items()}
                pairs = [(key, names[id(value)]) for key, value in ordered.items()]
                key, other = next(pair for pair in pairs if pair[0] != pair[1])
                note = f", matched by order and shape under other names: {key} is {other}, ..."
                tensors, backbone = ordered, candidate
                break
    full = set(backbone.state_dict()) - set(convolutions.state_dict())
    if full and not full & endings(tensors):
        backbone = convolutions
        logger.info(f"{file}: no fully-connected layers; the layers are {', '.join(backbone.layers)}.")
    try:
        kept = {"fresh": task.allow_missing, "unused": task.allow_unused}
        filled, matched = match_tensors(backbone, tensors, file, prefix=task.prefix, **kept)
    except ArtifactError as error:
        message = str(error).removesuffix(".")
        if isinstance(options, Timm) and (models := timm_models_with_registers(options.model, tensors)):
            raise ArtifactError(f"{message}; timm calls the network with these registers {models[0]}.") from None
        if model := model_of_torchvision(tensors):
            raise ArtifactError(
                f"{message}; these are torchvision's names of {model}: use `backbone: {{name: torchvision, "
                f"model: {model}}}`."
            ) from None
        raise
    return backbone, filled, matched + note


def _normalization(
    backbone: BackboneOptions, stated: Normalize | None, file: Path, about: dict[str, Any] | None
) -> Normalize:
    """The normalization in a file of this package (`about`), else the stated one, else timm's record, else ImageNet's.

    Raises:
        ArtifactError: it contradicts the file or timm's record of these weights, or timm has weights with different
            normalizations.
    """
    if about is not None:
        if stated not in (None, about["normalize"]):
            raise ArtifactError(
                f"{file}: trained on images normalized by `{about['normalize']}`, not `{stated}`; remove `normalize` "
                "of the task."
            )
        recorded: Normalize = about["normalize"]
        return recorded
    records = normalizations_of_timm(backbone.model) if isinstance(backbone, Timm) else []
    if stated is not None:
        if isinstance(backbone, Timm) and "." in backbone.model and stated not in records:
            raise ArtifactError(
                f"{file}: timm's {backbone.model} is trained on images normalized by `{records[0]}`, not `{stated}`; "
                "remove `normalize` of the task, or the tag of the model if the weights are others."
            )
        return stated
    if len(records) > 1:
        raise ArtifactError(
            f"{file}: timm has weights of {backbone.slug} with different normalizations; state `normalize` of the "
            f"task: {' or '.join(f'`{record}`' for record in records)}."
        )
    if records:
        logger.info(f"{file}: images are normalized by `{records[0]}`, as timm records for its weights.")
    return records[0] if records else "imagenet"
