"""Cost of networks, from their shapes: no weights are allocated."""

import math
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.backbones.libraries import LibraryModel
from ssltransfer.config.entities import Pretext
from ssltransfer.config.protocols import Pool, Segmentation, TrainedProtocol
from ssltransfer.config.schedule import Schedule
from ssltransfer.errors import UserError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.fcn import Fcn
from ssltransfer.models.flops import flops
from ssltransfer.models.pooling import pooled_shape

VOC_IMAGE = (375, 500)  # height and width of most of them


def task_flops(pretext: Pretext) -> float:
    """Forward cost of one image under a task, in floating-point operations."""
    number, backbone, size = pretext.task.forward_passes(pretext.backbone)
    return number * flops(backbone, size=size)


@lru_cache
def protocol_flops(protocol: TrainedProtocol, backbone: BackboneOptions) -> tuple[float, float]:
    """Forward cost of a training image and of a test image of an evaluation, without the evaluation's own heads."""
    if isinstance(protocol, Segmentation):
        return (segmentation_flops(backbone, protocol.padding),) * 2
    training, test = (
        passes * flops(backbone) + (regions * _region_flops(backbone) if regions else 0.0)
        for passes, regions in zip(protocol.forward_passes(backbone), protocol.regions, strict=True)
    )
    return training, test


def _region_flops(backbone: BackboneOptions) -> float:
    """Forward cost of a region: fc6 and fc7, or block4, which is a fifth of a ResNet at 224."""
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
def segmentation_problem(backbone: BackboneOptions, padding: int) -> str | None:
    """Why the fully convolutional network does not cover an image; None if it does. Its width does not matter."""
    narrow = backbone.model_copy(update={"width_mult": 0.01})
    try:
        Fcn(build_backbone(narrow, include_top=True), 21, padding=padding)
    except UserError as error:
        return str(error)
    return None


@lru_cache
def parameters(backbone: BackboneOptions, include_top: bool) -> int:
    """Number of parameters."""
    with torch.device("meta"):
        return sum(value.numel() for value in build_backbone(backbone, include_top=include_top).state_dict().values())


@lru_cache
def _shapes(backbone: BackboneOptions, size: int | tuple[int, int] | None = None) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return build_backbone(backbone, include_top=True).shapes(size)


def library_problem(backbone: LibraryModel, size: int | tuple[int, int] | None = None) -> str | None:
    """Why a network of another library cannot process images of a size (default: `img_size`); None if it can."""
    try:
        _shapes(backbone, size)
    except UserError as error:
        return str(error)
    except NotImplementedError:  # code that reads values, which a network without memory does not have
        return None
    except Exception as error:  # libraries raise errors of all kinds
        reason = (str(error) or type(error).__name__).splitlines()[0][:100]
        sides = " x ".join(map(str, size)) if isinstance(size, tuple) else size or backbone.img_size
        return (
            f"{backbone.model} of {backbone.name} cannot process images of {sides} pixels ({reason}); set another "
            "size, such as that of its published weights."
        )
    return None


def dims_of(backbone: BackboneOptions, layer: str, pool: Pool | None) -> int:
    """Dimensions of a layer's features of one image, pooled if the layer is a map."""
    return math.prod(pooled_shape(_shapes(backbone)[layer], pool))


def training_memory(backbone: BackboneOptions, schedule: Schedule) -> float:
    """GB on the device: weights, gradients and momenta, and the activations of a micro-batch with their gradients."""
    batch = schedule.micro_batch_size or schedule.batch_size
    activations = sum(math.prod(shape) for shape in _shapes(backbone).values())
    return (parameters(backbone, True) * 12 + activations * batch * 4 * 3) / 1e9


def teacher_memory(backbone: BackboneOptions, schedule: Schedule) -> float:
    """GB on the device of a frozen teacher: weights, and the largest layer of a micro-batch with its input."""
    batch = schedule.micro_batch_size or schedule.batch_size
    largest = max(math.prod(shape) for shape in _shapes(backbone).values())
    return (parameters(backbone, True) * 4 + largest * batch * 4 * 2) / 1e9
