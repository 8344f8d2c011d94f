"""What networks cost, counted on their shapes: no weights are made."""

from __future__ import annotations

import math
from functools import lru_cache, partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from ssltransfer.config.backbones import BackboneOptions
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
from ssltransfer.models.build import build_backbone, build_tile_backbone
from ssltransfer.models.fcn import Fcn
from ssltransfer.models.pooling import pooled_shape
from ssltransfer.models.weights import GRID

VOC_IMAGE = (375, 500)  # height and width of most of them
ASPECT = 4 / 3  # long by short side of an image that nobody has seen yet
USUAL_PROPOSALS = 2000  # an image, of selective search


def task_flops(pretext: Pretext) -> float:
    """Forward cost of one image under a task, in floating-point operations."""
    task, backbone = pretext.task, pretext.backbone
    if isinstance(task, Jigsaw | JigsawPP | PatchOptions):
        return 9 * _tile_flops(backbone, task.tiles.tile, task.tiles.stem_stride)
    if isinstance(task, PatchGrid):
        across = max(2, task.crop_size // (task.patch + task.gap))
        return task.grids_per_image * across**2 * _patch_flops(backbone, task.patch, getattr(task, "stem_stride", None))
    if isinstance(task, Exemplar):
        return task.num_views * flops(backbone)
    if isinstance(task, ExemplarPatches):
        return 2 * _patch_flops(backbone, task.patch)
    if isinstance(task, Colorization):
        return _patch_flops(backbone, task.resize)
    if isinstance(task, MotionSegmentation):
        return flops(backbone) * math.prod(task.input) / backbone.img_size**2
    return flops(backbone) * (4 if isinstance(task, Rotation) else 1)


@lru_cache
def flops(backbone: BackboneOptions, include_top: bool = False) -> float:
    """Floating-point operations (two a multiply-add) of one forward pass of one image."""
    with torch.device("meta"):
        network = build_backbone(backbone, include_top=include_top)
    return _count(network, backbone.img_size)


@lru_cache
def protocol_flops(protocol: ProtocolOptions, backbone: BackboneOptions) -> tuple[float, float]:
    """Forward cost of an image in an evaluation that trains and in its test, heads of its own left out.

    Detectors see whole images, at one of several sizes, and a number of regions of each.
    """
    if isinstance(protocol, Segmentation):
        return (segmentation_flops(backbone, protocol.padding),) * 2
    if isinstance(protocol, Depth):
        return (flops(backbone) * math.prod(protocol.crop) / backbone.img_size**2,) * 2
    if isinstance(protocol, Detection):
        learning = sum(map(partial(_whole, backbone), protocol.min_size)) / len(protocol.min_size)
        more = (protocol.multiscale_min_size or ()) if isinstance(protocol, FastRcnn) else ()
        testing = sum(map(partial(_whole, backbone), (protocol.test_min_size, *more)))
        judged = protocol.rpn_post_nms_top_n[1] if isinstance(protocol, FasterRcnn) else USUAL_PROPOSALS
        of_a_region = _region(backbone)
        return learning + protocol.roi_batch_size_per_image * of_a_region, testing + judged * of_a_region * (
            2 if more else 1
        )
    return (flops(backbone) * (GRID**2 if getattr(protocol, "patches", False) else 1),) * 2


def _whole(backbone: BackboneOptions, short: int) -> float:
    """On an image of this short side and a usual aspect."""
    return flops(backbone) * short**2 * ASPECT / backbone.img_size**2


def _region(backbone: BackboneOptions) -> float:
    """On a region: fc6 and fc7, or block4, which is a fifth of a ResNet at 224."""
    if backbone.top_layers:
        return 2.0 * (parameters(backbone, include_top=True) - parameters(backbone, include_top=False))
    return flops(backbone) * 224**2 / backbone.img_size**2 / 5


def segmentation_flops(backbone: BackboneOptions, padding: int) -> float:
    """Forward cost of one image of VOC's usual size through the fully convolutional network."""
    with torch.device("meta"):
        network = Fcn(build_backbone(backbone, include_top=True), 21, padding=padding).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.cells(torch.empty(1, 3, *VOC_IMAGE, device="meta"))
    return float(counter.get_total_flops())


@lru_cache
def _tile_flops(backbone: BackboneOptions, tile: int, stem_stride: int | None) -> float:
    with torch.device("meta"):
        network = build_tile_backbone(backbone, seed=0, stem_stride=stem_stride)
    return _count(network, tile)


@lru_cache
def _patch_flops(backbone: BackboneOptions, side: int, stem_stride: int | None = None) -> float:
    """With all strides of the backbone, but for the first where another one is given."""
    with torch.device("meta"):
        stem = {"stem_stride": stem_stride} if stem_stride else {}
        network = build_backbone(backbone.model_copy(update=stem), include_top=False)
    return _count(network, side)


def _count(network: torch.nn.Module, size: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.empty(1, 3, size, size, device="meta"))
    return float(counter.get_total_flops())


@lru_cache
def parameters(backbone: BackboneOptions, include_top: bool) -> int:
    """Number of parameters."""
    with torch.device("meta"):
        return sum(value.numel() for value in build_backbone(backbone, include_top=include_top).state_dict().values())


@lru_cache
def _shapes(backbone: BackboneOptions) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return build_backbone(backbone, include_top=True).shapes()


def dims_of(backbone: BackboneOptions, layer: str, pool: Pool | None) -> int:
    """Numbers that a layer gives for one image, pooled where it is a map."""
    return math.prod(pooled_shape(_shapes(backbone)[layer], pool))


def training_memory(backbone: BackboneOptions, batch: int) -> float:
    """GB on the device: weights, gradients and momenta, and the activations of a batch with their gradients."""
    activations = sum(math.prod(shape) for shape in _shapes(backbone).values())
    return (parameters(backbone, True) * 12 + activations * batch * 4 * 3) / 1e9
