"""Which layers of a model are measured one by one."""

from __future__ import annotations

from pathlib import Path

from ssltransfer.models.backbone import Backbone


def layers_to_measure(backbone: Backbone, asked: tuple[str, ...] | None, where: Path) -> tuple[str, ...]:
    """The layers that were asked for, or the default ones.

    Args:
        backbone: of the model.
        asked: their names; None: `default_layers`.
        where: manifest of the model.

    Raises:
        LayerError: the model has no such layer.
    """
    layers = asked or default_layers(backbone)
    backbone.require(layers, where)
    return layers


def default_layers(backbone: Backbone) -> tuple[str, ...]:
    """Every convolutional map; the vectors of a backbone that has no maps (HOG)."""
    shapes = backbone.shapes()
    names = tuple(name for name in backbone.layers if name in backbone.options.base_layers)
    return tuple(name for name in names if len(shapes[name]) == 3) or names
