"""Records of the published weights in timm and torchvision. The libraries are imported when a record is read."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from ssltransfer.config.base import ConfigError, suggest
from ssltransfer.extras import import_extra


@dataclass(frozen=True)
class WeightsRecord:
    """What a library records of weights.

    Attributes:
        weights: LIBRARY/MODEL.TAG.
        library, model, tag: its parts.
        img_size: side of the images that the network was trained on, in pixels.
        mean, std: of each channel of images in [0, 1].
        license: of the weights; None if the library does not record it.
        source: where the library gets the file.
    """

    weights: str
    library: str
    model: str
    tag: str
    img_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    license: str | None
    source: str


def weights_record(weights: str) -> WeightsRecord:
    """The record of `timm/MODEL.TAG` or `torchvision/MODEL.TAG`. Without a tag: of the library's default weights.

    Raises:
        ConfigError: the library has no such network or no such weights.
        MissingExtraError: timm is not installed.
    """
    library, _, name = weights.partition("/")
    return {"timm": _of_timm, "torchvision": _of_torchvision}[library](weights, *name.partition(".")[::2])


def _of_timm(weights: str, model: str, tag: str) -> WeightsRecord:
    timm = import_extra("timm", "timm", f"weights {weights}")
    if not timm.is_model(model):
        raise ConfigError(f"weights: timm has no network {model!r}{suggest(model, timm.list_models())}")
    known = [name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*")]
    if not known or tag not in ("", *known):
        has = suggest(tag, known) if known else ".; none are published"
        raise ConfigError(f"weights: timm has no weights {tag!r} of {model}{has}")
    record = timm.get_pretrained_cfg(f"{model}.{tag}" if tag else model)
    tag = record.tag
    return WeightsRecord(
        weights=f"timm/{model}.{tag}",
        library=f"timm {timm.__version__}",
        model=model,
        tag=tag,
        img_size=record.input_size[-1],
        mean=tuple(record.mean),
        std=tuple(record.std),
        license=record.license,
        source=f"repository {record.hf_hub_id} of the Hugging Face hub" if record.hf_hub_id else str(record.url),
    )


def _of_torchvision(weights: str, model: str, tag: str) -> WeightsRecord:
    models: Any = importlib.import_module("torchvision.models")
    known = models.list_models(module=models)
    if model not in known:
        raise ConfigError(f"weights: torchvision has no network {model!r}{suggest(model, known)}")
    all_weights = models.get_model_weights(model)
    if tag not in ("", *all_weights.__members__):
        raise ConfigError(
            f"weights: torchvision has no weights {tag!r} of {model}{suggest(tag, all_weights.__members__)}"
        )
    chosen = all_weights[tag] if tag else all_weights.DEFAULT
    view = chosen.transforms()
    return WeightsRecord(
        weights=f"torchvision/{model}.{chosen.name}",
        library=f"torchvision {importlib.import_module('torchvision').__version__}",
        model=model,
        tag=chosen.name,
        img_size=view.crop_size[0],
        mean=tuple(view.mean),
        std=tuple(view.std),
        license=None,
        source=chosen.url,
    )
