"""Checks of what a network can do: the sizes of its inputs, and its layers that are maps or vectors."""

from collections.abc import Iterable

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.backbones.libraries import LibraryModel
from ssltransfer.config.base import ConfigError
from ssltransfer.config.config import ModelEntry
from ssltransfer.config.entities import Pretext
from ssltransfer.config.protocols import (
    Depth,
    Detection,
    FastRcnn,
    FeatureProtocol,
    Pool,
    ProbeOptions,
    ProtocolOptions,
    VocClassification,
)
from ssltransfer.config.tasks import Imported


def check_model_size(model: ModelEntry, where: str) -> None:
    """The model can process images of its `img_size`.

    Raises:
        ConfigError: they are too small.
    """
    backbone = model.backbone
    # Imported files may lack the fully-connected layers.
    imported = isinstance(getattr(model.spec, "task", None), Imported)
    layer = backbone.base_layers[-1] if imported else model.layers[-1]
    if not backbone.accepts(backbone.img_size, layer):
        raise ConfigError(
            f"{where}.img_size: images of {backbone.img_size} pixels are too small for layer {layer} of "
            f"{backbone.slug}; increase it{_or_stride(backbone, backbone.img_size, layer)}."
        )


def check_task_inputs(part: Pretext, where: str) -> None:
    """The backbone has the map that the task's head reads, and can process the task's inputs.

    Raises:
        ConfigError: it does not.
    """
    task, stated = part.task, part.backbone
    if not task.is_trainable:
        return
    if task.needs_map and not stated.spatial_layers:
        raise ConfigError(
            f"{where}: {task.name} reads a map, but all layers of {stated.slug} are vectors; name a module with "
            "a map in `return_nodes` of the backbone, such as [layer4]."
        )
    stride = getattr(getattr(task, "tiles", task), "stem_stride", None)
    if stride and isinstance(stated, LibraryModel):
        raise ConfigError(
            f"{where}.task: networks of {stated.name} keep their first stride; remove `stem_stride` of the task."
        )
    backbone, sides = task.input_sizes(stated)
    layer = backbone.base_layers[-1]
    for side in sides:
        if not backbone.accepts(side, layer):
            suits = backbone.model_copy(update={"img_size": side}).accepts(side, layer)
            size = f"set `img_size: {side}` of the backbone" if suits else "increase their size"
            raise ConfigError(
                f"{where}.task: its inputs of {side} pixels do not suit layer {layer} of {stated.slug}; "
                f"{size}{_or_stride(backbone, side, layer)}."
            )


def _or_stride(backbone: BackboneOptions, size: int, layer: str) -> str:
    """Advice on the stride of the first convolution if it helps."""
    return ", or set `stem_stride: 1`" if backbone.with_stem_stride(1).accepts(size, layer) else ""


def check_pool(backbone: BackboneOptions, layer: str, pool: Pool | None, where: str) -> None:
    """Only maps are pooled.

    Raises:
        ConfigError: the layer is a vector.
    """
    if pool and layer in backbone.layers and layer not in backbone.spatial_layers:
        raise ConfigError(f"{where}: {layer} of {backbone.slug} is a vector and cannot be pooled; remove the key.")


def check_map(backbone: BackboneOptions, layer: str | None, where: str) -> None:
    """The layer (default: the last map) is a map.

    Raises:
        ConfigError: it is a vector, or the backbone has no such layer or no map.
    """
    maps = backbone.spatial_layers
    if not maps or (layer and layer not in maps):
        fault = f"{layer or 'every layer'} is a vector" if layer in (None, *backbone.layers) else f"no layer {layer!r}"
        raise ConfigError(f"{where}: {backbone.slug} needs a map, but {fault}{_named_maps(maps)}.")


def check_protocol_layers(protocol: ProtocolOptions, model: ModelEntry, where: str) -> None:
    """The model has the layers that a protocol needs, as maps where it needs maps.

    Raises:
        ConfigError: it does not.
    """
    backbone = model.backbone
    if isinstance(protocol, FeatureProtocol | ProbeOptions):
        check_pool(backbone, protocol.layer or model.layers[-1], protocol.pool, f"{where}.protocol.pool")
    if isinstance(protocol, Depth):
        _check_depth(protocol, model, where)
    if isinstance(protocol, Detection):
        _check_detection(protocol, model, where)
    if isinstance(protocol, VocClassification) and protocol.trainable == "fc8":
        lacking = set(backbone.top_layers) - set(model.layers)
        if lacking:
            raise ConfigError(
                f"{where}.protocol.trainable: {model.name} has no weights of {', '.join(sorted(lacking))}; set "
                "`trainable: all`, or evaluate this model in an entry of its own."
            )


def _check_depth(protocol: Depth, model: ModelEntry, where: str) -> None:
    maps = model.backbone.spatial_layers
    layer = protocol.layer or ("block3" if "block3" in maps else next(iter(maps[-1:]), ""))
    if layer not in maps:
        raise ConfigError(
            f"{where}.protocol.layer: depth needs a map, which {layer or 'every layer'} of {model.name} "
            f"({model.backbone.slug}) is not{_named_maps(maps)}."
        )
    for side in protocol.crop:
        if not model.backbone.accepts(side, layer):
            raise ConfigError(
                f"{where}.protocol.crop: {side} pixels are too small for {layer} of {model.backbone.slug}; increase it."
            )


def _named_maps(maps: Iterable[str]) -> str:
    return f"; its maps are {', '.join(maps)}" if maps else "; set `return_nodes` of the backbone"


def _check_detection(protocol: Detection, model: ModelEntry, where: str) -> None:
    backbone = model.backbone
    layer = backbone.base_layers[-1] if backbone.top_layers and isinstance(protocol, FastRcnn) else "block3"
    depth = backbone.layers.index(layer) + 1
    if protocol.freeze_at > depth:
        raise ConfigError(
            f"{where}.protocol.freeze_at: the map of {model.name} ({backbone.slug}) has {depth} layers; use at most "
            f"{depth}."
        )
    # The stride of the map is measured on images of 64 pixels.
    smallest = min(64, *protocol.min_size, *protocol.test_min_sizes)
    if not backbone.accepts(smallest, layer):
        raise ConfigError(
            f"{where}.models: images of {smallest} pixels are too small for {layer} of {model.name} ({backbone.slug}); "
            f"increase min_size{_or_stride(backbone, smallest, layer)}."
        )
