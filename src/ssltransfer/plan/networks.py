"""What networks cost, counted on their shapes: no weights are made."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from ssltransfer.config.entities import Pretext
from ssltransfer.config.protocols import Pool
from ssltransfer.config.tasks import Jigsaw, JigsawPP, RelativePosition, Rotation
from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.models.build import build_tile_trunk, build_trunk
from ssltransfer.models.fcn import Fcn
from ssltransfer.models.pooling import pooled_shape

VOC_PICTURE = (375, 500)  # height and width of most of them


def task_flops(pretext: Pretext) -> float:
    """Forward cost of one picture under a task, in floating-point operations."""
    task, trunk = pretext.task, pretext.trunk
    if isinstance(task, Jigsaw | JigsawPP):
        return 9 * _tile_flops(trunk, task.tiles.tile, task.tiles.stem_stride)
    if isinstance(task, RelativePosition):
        across = max(2, task.canvas // (task.patch + task.gap))
        return task.grids * across**2 * _tile_flops(trunk, task.patch, task.stem_stride or trunk.stem_stride)
    return flops(trunk) * (4 if isinstance(task, Rotation) else 1)


@lru_cache
def flops(trunk: TrunkOptions, top: bool = False) -> float:
    """Floating-point operations (two a multiply-add) of one forward pass of one picture."""
    if trunk.name == "hog-words":
        side = trunk.size // trunk.cell - 1  # type: ignore[attr-defined]
        return 2.0 * side**2 * 36 * trunk.words  # type: ignore[attr-defined]
    with torch.device("meta"):
        network = build_trunk(trunk, top=top)
    return _count(network, trunk.size)


@lru_cache
def segmentation_flops(trunk: TrunkOptions, padding: int) -> float:
    """Forward cost of one picture of VOC's usual size through the fully convolutional network."""
    with torch.device("meta"):
        network = Fcn(build_trunk(trunk, top=True), 21, padding=padding).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.cells(torch.empty(1, 3, *VOC_PICTURE, device="meta"))
    return float(counter.get_total_flops())


@lru_cache
def _tile_flops(trunk: TrunkOptions, tile: int, stem_stride: int | None) -> float:
    with torch.device("meta"):
        network = build_tile_trunk(trunk, seed=0, stem_stride=stem_stride)
    return _count(network, tile)


def _count(network: torch.nn.Module, size: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.empty(1, 3, size, size, device="meta"))
    return float(counter.get_total_flops())


@lru_cache
def parameters(trunk: TrunkOptions, top: bool) -> int:
    """Number of parameters."""
    with torch.device("meta"):
        return sum(value.numel() for value in build_trunk(trunk, top=top).state_dict().values())


@lru_cache
def _shapes(trunk: TrunkOptions) -> dict[str, tuple[int, ...]]:
    if trunk.name == "hog-words":
        return {"words": (trunk.words,)}  # type: ignore[attr-defined]
    with torch.device("meta"):
        return build_trunk(trunk, top=True).shapes()


def dims_of(trunk: TrunkOptions, layer: str, pool: Pool | None) -> int:
    """Numbers that a layer gives for one picture, pooled where it is a map."""
    return math.prod(pooled_shape(_shapes(trunk)[layer], pool))


def training_memory(trunk: TrunkOptions, batch: int) -> float:
    """GB on the device: weights, gradients and momenta, and the activations of a batch with their gradients."""
    activations = sum(math.prod(shape) for shape in _shapes(trunk).values())
    return (parameters(trunk, True) * 12 + activations * batch * 4 * 3) / 1e9
