"""Imported weights: a model from a state dict."""

from pathlib import Path

from ssltransfer.artifacts.files import ArtifactError, file_digest
from ssltransfer.config.backbones import BackboneOptions, Timm
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import Imported
from ssltransfer.config.weights_metadata import backbone_difference, read_metadata
from ssltransfer.logs import logger
from ssltransfer.models.build import build_backbone
from ssltransfer.models.checkpoint_formats import endings, renamed
from ssltransfer.models.libraries import (
    converted_by_timm,
    model_of_torchvision,
    normalizations_of_timm,
    timm_models_with_registers,
)
from ssltransfer.models.normalize import Normalize
from ssltransfer.models.state_dicts import by_order, load_tensors, read_tensors
from ssltransfer.models.weights import require_activations, verify_activations
from ssltransfer.tasks.pretext.base import FIXED_MODELS, BuiltModel, ModelInputs


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
    task, file = spec.task, spec.task.file.checked()
    if difference := backbone_difference(file, spec.backbone):
        raise ArtifactError(difference)
    backbone = build_backbone(spec.backbone, include_top=True)
    tensors = renamed(read_tensors(file), backbone.state_dict())
    convolutions = build_backbone(spec.backbone, include_top=False)
    by_name = {key for key in convolutions.state_dict() if not key.endswith("num_batches_tracked")}
    note = ""
    if not by_name <= endings(tensors):
        converted = converted_by_timm(backbone, tensors)
        if converted is not None and by_name <= converted.keys():
            tensors, note = converted, ", converted by timm from the names of the publisher"
    if task.prefix is None and not by_name <= endings(tensors):
        for candidate in (backbone, convolutions):
            if ordered := by_order(tensors, candidate.state_dict()):
                other = next(name for name in tensors if tensors[name] is next(iter(ordered.values())))
                note = f", matched by order and shape under other names: {next(iter(ordered))} is {other}, ..."
                tensors, backbone = ordered, candidate
                break
    full = set(backbone.state_dict()) - set(convolutions.state_dict())
    if full and not full & endings(tensors):
        backbone = convolutions
        logger.info(f"{file}: no fully-connected layers; the layers are {', '.join(backbone.layers)}.")
    try:
        options = {"fresh": task.allow_missing, "unused": task.allow_unused}
        matched = load_tensors(backbone, tensors, file, prefix=task.prefix, **options) + note
    except ArtifactError as error:
        message = str(error).removesuffix(".")
        if isinstance(spec.backbone, Timm) and (models := timm_models_with_registers(spec.backbone.model, tensors)):
            raise ArtifactError(f"{message}; timm calls the network with these registers {models[0]}.") from None
        if model := model_of_torchvision(tensors):
            raise ArtifactError(
                f"{message}; these are torchvision's names of {model}: use `backbone: {{name: torchvision, "
                f"model: {model}}}`."
            ) from None
        raise
    logger.info(f"{file}: {matched}")
    content, about = {"file": file_digest(file), "matched": matched}, read_metadata(file)
    if about is None:
        normalization = _normalization(spec.backbone, task.normalize, file)
        require_activations(backbone, normalization, file)
        return BuiltModel(backbone, normalization, content)
    if task.normalize not in (None, about["normalize"]):
        raise ArtifactError(
            f"{file}: trained on images normalized by `{about['normalize']}`, not `{task.normalize}`; remove "
            "`normalize` of the task."
        )
    verify_activations(backbone, about, file)
    return BuiltModel(backbone, about["normalize"], content)


def _normalization(backbone: BackboneOptions, stated: Normalize | None, file: Path) -> Normalize:
    """The stated normalization, else that of timm's record, else ImageNet's.

    Raises:
        ArtifactError: it contradicts timm's record of these weights, or timm has weights with different normalizations.
    """
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
