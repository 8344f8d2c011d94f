"""What networks cost, counted on their shapes: no weights are made."""

from __future__ import annotations

import math
from functools import lru_cache, partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from ssltransfer.config.entities import Pretext
from ssltransfer.config.protocols import Depth, Detection, FasterRcnn, FastRcnn, Pool, Segmentation
from ssltransfer.config.protocols.base import ProtocolOptions
from ssltransfer.config.tasks import (
    Colorization,
    Exemplar,
    ExemplarPatches,
    Jigsaw,
    JigsawPP,
    MotionSegmentation,
    PatchGrid,
    PatchOptions,
    Rotation,
)
from ssltransfer.config.trunks import TrunkOptions
from ssltransfer.models.build import build_tile_trunk, build_trunk
from ssltransfer.models.fcn import Fcn
from ssltransfer.models.pooling import pooled_shape
from ssltransfer.models.weights import GRID

VOC_PICTURE = (375, 500)  # height and width of most of them
ASPECT = 4 / 3  # long by short side of a picture that nobody has seen yet
USUAL_PROPOSALS = 2000  # a picture, of selective search


def task_flops(pretext: Pretext) -> float:
    """Forward cost of one picture under a task, in floating-point operations."""
    task, trunk = pretext.task, pretext.trunk
    if isinstance(task, Jigsaw | JigsawPP | PatchOptions):
        return 9 * _tile_flops(trunk, task.tiles.tile, task.tiles.stem_stride)
    if isinstance(task, PatchGrid):
        across = max(2, task.canvas // (task.patch + task.gap))
        return task.grids * across**2 * _patch_flops(trunk, task.patch, getattr(task, "stem_stride", None))
    if isinstance(task, Exemplar):
        return task.views * flops(trunk)
    if isinstance(task, ExemplarPatches):
        return 2 * _patch_flops(trunk, task.patch)
    if isinstance(task, Colorization):
        return _patch_flops(trunk, task.resize)
    if isinstance(task, MotionSegmentation):
        return flops(trunk) * math.prod(task.input) / trunk.size**2
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
def protocol_flops(protocol: ProtocolOptions, trunk: TrunkOptions) -> tuple[float, float]:
    """Forward cost of a picture in an evaluation that trains and in its test, heads of its own left out.

    Detectors see whole pictures, at one of several sizes, and a number of regions of each.
    """
    if isinstance(protocol, Segmentation):
        return (segmentation_flops(trunk, protocol.padding),) * 2
    if isinstance(protocol, Depth):
        return (flops(trunk) * math.prod(protocol.crop) / trunk.size**2,) * 2
    if isinstance(protocol, Detection):
        learning = sum(map(partial(_whole, trunk), protocol.scales)) / len(protocol.scales)
        more = (protocol.test_scales or ()) if isinstance(protocol, FastRcnn) else ()
        testing = sum(map(partial(_whole, trunk), (protocol.test_scale, *more)))
        judged = protocol.proposals[1] if isinstance(protocol, FasterRcnn) else USUAL_PROPOSALS
        of_a_region = _region(trunk)
        return learning + protocol.rois * of_a_region, testing + judged * of_a_region * (2 if more else 1)
    return (flops(trunk) * (GRID**2 if getattr(protocol, "patches", False) else 1),) * 2


def _whole(trunk: TrunkOptions, short: int) -> float:
    """On a picture of this short side and a usual aspect."""
    return flops(trunk) * short**2 * ASPECT / trunk.size**2


def _region(trunk: TrunkOptions) -> float:
    """On a region: fc6 and fc7, or block4, which is a fifth of a ResNet at 224."""
    if trunk.fully_connected:
        return 2.0 * (parameters(trunk, top=True) - parameters(trunk, top=False))
    return flops(trunk) * 224**2 / trunk.size**2 / 5


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


@lru_cache
def _patch_flops(trunk: TrunkOptions, side: int, stem_stride: int | None = None) -> float:
    """With all strides of the trunk, but for the first where another one is given."""
    with torch.device("meta"):
        stem = {"stem_stride": stem_stride} if stem_stride else {}
        network = build_trunk(trunk.model_copy(update=stem), top=False)
    return _count(network, side)


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
