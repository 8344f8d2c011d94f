"""Imported weights: a model from a state dict."""

from ssltransfer.artifacts.files import ArtifactError, file_digest
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import Imported
from ssltransfer.logs import logger
from ssltransfer.models.build import build_backbone
from ssltransfer.models.checkpoint_formats import endings, renamed
from ssltransfer.models.state_dicts import load_tensors, read_tensors
from ssltransfer.models.weights import read_metadata, verify_activations
from ssltransfer.tasks.pretext.base import FIXED_MODELS, BuiltModel, ModelInputs


@FIXED_MODELS.register(Imported)
def import_weights(spec: Pretext, inputs: ModelInputs) -> BuiltModel:
    """The backbone with the weights of the file, with fully-connected layers if the file has any of them.

    A file of this package contains its normalization and activations, which are verified.

    Raises:
        ArtifactError: the file is missing or has other content than tensors, a tensor is missing or has another shape,
            or the task's normalization differs from the file's.
    """
    assert isinstance(spec.task, Imported)
    task, file = spec.task, spec.task.file.checked()
    backbone = build_backbone(spec.backbone, include_top=True)
    tensors = renamed(read_tensors(file), backbone.state_dict())
    convolutions = build_backbone(spec.backbone, include_top=False)
    full = set(backbone.state_dict()) - set(convolutions.state_dict())
    if full and not full & endings(tensors):
        backbone = convolutions
        logger.info(f"{file}: no fully-connected layers; the layers are {', '.join(backbone.layers)}.")
    matched = load_tensors(backbone, tensors, file, prefix=task.prefix, fresh=task.allow_missing)
    logger.info(f"{file}: {matched}")
    content, about = {"file": file_digest(file), "matched": matched}, read_metadata(file)
    if about is None:
        return BuiltModel(backbone, task.normalize or "imagenet", content)
    if task.normalize not in (None, about["normalize"]):
        raise ArtifactError(
            f"{file}: trained on images normalized by `{about['normalize']}`, not `{task.normalize}`; remove "
            "`normalize` of the task."
        )
    verify_activations(backbone, about, file)
    return BuiltModel(backbone, about["normalize"], content)
