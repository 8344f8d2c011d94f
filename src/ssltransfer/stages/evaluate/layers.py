"""Which layers of a model are measured one by one."""

from __future__ import annotations

from pathlib import Path

from ssltransfer.models.trunk import Trunk


def layers_to_measure(trunk: Trunk, asked: tuple[str, ...] | None, where: Path) -> tuple[str, ...]:
    """The layers that were asked for, or the default ones.

    Args:
        trunk: of the model.
        asked: their names; None: `default_layers`.
        where: manifest of the model.

    Raises:
        LayerError: the model has no such layer.
    """
    layers = asked or default_layers(trunk)
    trunk.require(layers, where)
    return layers


def default_layers(trunk: Trunk) -> tuple[str, ...]:
    """Every convolutional map; the vectors of a trunk that has no maps (HOG)."""
    shapes = trunk.shapes()
    names = tuple(name for name in trunk.layers if name in trunk.options.convolutions)
    return tuple(name for name in names if len(shapes[name]) == 3) or names
