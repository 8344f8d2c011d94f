"""Published weights: a model with weights that timm or torchvision fetches."""

import importlib
from typing import Any

import torch
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.backbones import AnyBackbone, Timm
from ssltransfer.config.backbones.libraries import LibraryModel
from ssltransfer.config.entities import Pretext
from ssltransfer.config.published_weights import WeightsRecord, weights_record
from ssltransfer.config.tasks import Pretrained
from ssltransfer.logs import logger
from ssltransfer.models.build import build_backbone
from ssltransfer.models.normalize import normalization_by_values
from ssltransfer.models.state_dicts import match_tensors
from ssltransfer.models.weights import require_activations
from ssltransfer.tasks.pretext.base import FIXED_MODELS, BuiltModel, ModelInputs


@FIXED_MODELS.register(Pretrained)
def load_pretrained(spec: Pretext, inputs: ModelInputs) -> BuiltModel:
    """The backbone with published weights, their normalization and their license.

    Raises:
        ArtifactError: the weights cannot be fetched or are of another network than the backbone.
    """
    assert isinstance(spec.task, Pretrained)
    record = weights_record(spec.task.weights_for(spec.backbone))
    tensors = _fetch(record, spec.backbone)
    backbone = build_backbone(spec.backbone, include_top=False)
    filled, matched = match_tensors(backbone, tensors, record.weights, prefix="")
    backbone.load_state_dict(filled, strict=False)
    if record.img_size != spec.backbone.img_size:
        logger.info(
            f"{record.weights}: trained on images of {record.img_size} pixels, used on {spec.backbone.img_size} "
            "(img_size of the backbone)."
        )
    normalization = normalization_by_values(record.mean, record.std)
    require_activations(backbone, normalization, record.weights)
    logger.info(
        f"{record.weights}: {matched}; images are normalized by `{normalization}`, as {record.library} records."
    )
    content = {"source": f"{record.weights}, by {record.library}", "matched": matched, "license": record.license}
    return BuiltModel(backbone, normalization, content)


def check_pretrained(spec: Pretext) -> None:
    """Check a `Pretrained` pretext without its weights: they exist, and their network has the backbone's tensors.

    Raises:
        ArtifactError: they are of another network.
        ConfigError: there are no such weights.
    """
    assert isinstance(spec.task, Pretrained)
    record = weights_record(spec.task.weights_for(spec.backbone))
    own = isinstance(spec.backbone, LibraryModel) and spec.task.weights is None
    if own and not getattr(spec.backbone, "embed_dim", None):
        return
    with torch.device("meta"):
        backbone = build_backbone(spec.backbone, include_top=False)
        shapes = _network(record, spec.backbone, pretrained=False).state_dict()
    for name, value in backbone.state_dict().items():
        if name not in shapes or (shapes[name].shape != value.shape and "pos_embed" not in name):
            raise ArtifactError(
                f"{record.weights} has no tensor {name} of shape {tuple(value.shape)}, which the backbone "
                f"{spec.backbone.slug} has; leave `backbone` out, or name weights of this network."
            )


def _network(record: WeightsRecord, backbone: AnyBackbone, *, pretrained: bool) -> Any:
    """The library's network with its classifier."""
    if record.library.startswith("torchvision"):
        models: Any = importlib.import_module("torchvision.models")
        weights = models.get_model_weights(record.model)[record.tag]
        more: dict[str, Any] = {"init_weights": False} if record.model in ("googlenet", "inception_v3") else {}
        return models.get_model(record.model, weights=weights if pretrained else None, **({} if pretrained else more))
    timm = importlib.import_module("timm")
    # timm resamples position embeddings for another size of the images.
    fixed = isinstance(backbone, Timm) and timm.get_pretrained_cfg(record.model).fixed_input_size
    options = {"img_size": backbone.img_size} if fixed else {}
    return timm.create_model(f"{record.model}.{record.tag}", pretrained=pretrained, **options)


def _fetch(record: WeightsRecord, backbone: AnyBackbone) -> dict[str, Tensor]:
    """The published tensors.

    Raises:
        ArtifactError: they are not in the library's cache and cannot be downloaded.
    """
    try:
        tensors: dict[str, Tensor] = _network(record, backbone, pretrained=True).state_dict()
    except OSError as error:  # of urllib, requests and the hub alike
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ArtifactError(
            f"{record.weights}: cannot be fetched from {record.source} ({why}); run this job where there is a network "
            "(the cache is $HF_HOME or $TORCH_HOME), or bring the file and use the task imported."
        ) from None
    return tensors
