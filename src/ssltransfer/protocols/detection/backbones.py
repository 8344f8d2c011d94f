"""Backbones of detectors: a map of the whole image, and a vector for each RoI."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align, roi_pool

from ssltransfer.data.rng import seed_of
from ssltransfer.models.backbone import Backbone, LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.fuse_bn import fuse_conv_bn
from ssltransfer.models.layer_mix import MixedBackbone
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.protocols.detection.proposals import grid

CALIBRATION_ROIS = 64  # per image, for the batch norms of layers after RoI pooling


class DetectorBackbone(nn.Module, ABC):
    """A backbone that is split at a layer: RoIs are pooled from its map.

    Attributes:
        backbone: the part up to `layer`, whose map RoIs are pooled from.
        stride: pixels of the image per pixel of the map.
        channels: of the map.
        side: of a pooled RoI.
        dims: of a RoI's vector.
    """

    dims: int

    def __init__(self, backbone: Backbone, layer: str, side: int, pooling: Literal["pool", "align"]):
        super().__init__()
        self.backbone, self.layer, self.side, self.pooling = backbone, layer, side, pooling
        small, large = (_map_of(backbone, layer, size) for size in (64, 128))
        self.stride = 64 / (large.shape[-1] - small.shape[-1])
        self.channels = large.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Images float (B, 3, H, W) -> map (B, C, H / stride, W / stride)."""
        maps: Tensor = self.backbone(x, [self.layer])[self.layer]
        return maps

    def roi_features(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """Vectors (N, dims) of RoIs, float (N, 4) in pixels of an image, pooled from its map (1, C, h, w)."""
        scale = 1 / self.stride
        if self.pooling == "align":
            return self.vectors(roi_align(maps.float(), [boxes], self.side, scale, sampling_ratio=2, aligned=True))
        # Caffe's corners are inclusive.
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] - 1], dim=1)
        return self.vectors(roi_pool(maps.float(), [boxes], self.side, scale))

    @abstractmethod
    def vectors(self, cut: Tensor) -> Tensor:
        """(N, C, side, side) -> (N, dims)."""

    def train(self, mode: bool = True) -> DetectorBackbone:
        """Batch norms stay in evaluation mode: two images are too few for statistics."""
        super().train(mode)
        for norm in norms_of(self):
            norm.eval()
        return self

    def freeze(self, layers: int) -> None:
        """Freeze the first layers, and all batch norms with their scale and shift.

        Raises:
            LayerError: the map has fewer layers.
        """
        depth = self.backbone.layers.index(self.layer) + 1
        if layers > depth:
            raise LayerError(f"{self.backbone.options.name}: `freeze_at: {layers}`, but its map has {depth} layers.")
        if layers:
            for parameter in _parameters_up_to(self.backbone, self.backbone.layers[layers - 1]):
                parameter.requires_grad_(False)
        for norm in norms_of(self):
            norm.requires_grad_(False)


class FcBackbone(DetectorBackbone):
    """Last convolution, RoI pooling to the input side of fc6, then fc6 and fc7 with dropout (Girshick 2015).

    In CaffeNet and AlexNet conv1 is padded by 5 and each pooling by 1, so that pixel i of the map is centered at 16 i
    (fast-rcnn's CaffeNet). The side is 6 for these, 7 for VGG16, and smaller for backbones of smaller images.
    """

    def __init__(
        self, model: PretrainedModel, reinit_fc: bool, dropout: float, pooling: Literal["pool", "align"], seed: int
    ):
        options = model.backbone.options
        backbone = build_backbone(options, include_top=False)
        given = model.backbone.state_dict()
        backbone.load_state_dict({name: given[name] for name in backbone.state_dict()})
        # New layers have Kaiming's initialization, as everywhere.
        whole = build_backbone(options, include_top=True, seed=seed_of(seed, "fc"))
        if not reinit_fc:
            whole.load_state_dict(given, strict=False)
        # Norms of fc6 and fc7 are frozen like all norms of a detector.
        fuse_conv_bn(whole, linear_only=True)
        first, second = (module for module in whole.modules() if isinstance(module, nn.Linear))
        if options.caffe_padding:
            _pad(backbone)
        layer = options.base_layers[-1]
        channels = _map_of(backbone, layer, 128).shape[1]
        super().__init__(backbone, layer, round((first.in_features / channels) ** 0.5), pooling)
        self.fc6, self.fc7, self.dims = first, second, second.out_features
        self.dropout = nn.Dropout(dropout)

    def vectors(self, cut: Tensor) -> Tensor:
        """See `DetectorBackbone`."""
        x = self.dropout(self.fc6(cut.flatten(1)).relu())
        return self.dropout(self.fc7(x).relu())


class Res5Backbone(DetectorBackbone):
    """Map of block3, RoI pooling to 14 x 14, block4 on each region and the average (He et al. 2016, on VOC).

    A backbone without block4 gets a new one, and a dilated block3 is reset to stride 16. If `mixed`, the map is a mix
    of block3's units, whose norm has initial statistics, and block4 reads that.

    Raises:
        LayerError: the backbone has no such blocks, or no units to mix.
    """

    def __init__(self, model: PretrainedModel, pooling: Literal["pool", "align"], seed: int, *, mixed: bool = False):
        backbone = _with_block4(model, seed)
        if mixed:
            backbone = MixedBackbone(backbone)
            backbone.mix.norm.reset_running_stats()
        super().__init__(backbone, "block3", 14, pooling)
        self.mix = backbone.mix if isinstance(backbone, MixedBackbone) else None
        # Up to the average; a network without one (VGG) is averaged after its last map.
        layers = self.backbone.layers
        end = layers.index("pool") if "pool" in layers else layers.index("block4")
        self.later = layers[layers.index("block4") : end + 1]
        with torch.no_grad():
            self.dims = self.eval().vectors(torch.zeros(1, self.channels, self.side, self.side)).shape[1]

    def vectors(self, cut: Tensor) -> Tensor:
        """See `DetectorBackbone`."""
        for layer in self.later:
            cut = self.backbone.forward_layer(layer, cut)
        return cut.mean((2, 3)) if cut.ndim == 4 else cut


def _with_block4(model: PretrainedModel, seed: int) -> Backbone:
    """The backbone up to block4."""
    options = model.backbone.options
    wanted = {"block4": True, "output_stride": 16}
    options = options.model_copy(update={name: wanted[name] for name in wanted if name in type(options).model_fields})
    if not {"block3", "block4"} <= set(options.layers):
        raise LayerError(
            f"{model.name}: {options.name} has no block3 and block4; name a residual network, or use fast-rcnn for "
            "networks with fully-connected layers."
        )
    backbone = build_backbone(options, include_top=False, seed=seed_of(seed, "block4"))
    # The weights fit: a missing block4 is initialized, and dilation does not change shapes.
    backbone.load_state_dict(model.backbone.state_dict(), strict=False)
    return backbone


def _pad(backbone: Backbone) -> None:
    """Pad an AlexNet so that its map is aligned with the image."""
    next(module for module in backbone.modules() if isinstance(module, nn.Conv2d)).padding = (5, 5)
    for module in backbone.modules():
        if isinstance(module, nn.MaxPool2d):
            module.padding = 1


@torch.no_grad()
def _map_of(backbone: Backbone, layer: str, size: int) -> Tensor:
    """The map of a black image."""
    was = backbone.training
    maps: Tensor = backbone.eval()(torch.zeros(1, 3, size, size), [layer])[layer]
    backbone.train(was)
    return maps


def _parameters_up_to(backbone: Backbone, layer: str) -> list[nn.Parameter]:
    """Parameters that the output of a layer depends on: those with a gradient."""
    parameters = list(backbone.parameters())
    with torch.enable_grad():
        out = backbone.eval()(torch.zeros(1, 3, 64, 64), [layer])[layer].sum()
        reached = torch.autograd.grad(out, parameters, allow_unused=True)
    return [parameter for parameter, gradient in zip(parameters, reached, strict=True) if gradient is not None]


def norms_of(module: nn.Module) -> list[nn.BatchNorm2d]:
    """Its batch norms."""
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


@torch.no_grad()
def calibrate_bn(body: DetectorBackbone, images: Iterable[Tensor]) -> int:
    """Set the statistics of batch norms that were never trained from preprocessed images, float (1, 3, H, W) each.

    Norms are frozen while a detector trains. Those of a random network or of a new block4 have mean 0 and variance 1,
    with which activations would double in every residual unit. [chosen] Returns the number of these norms.
    """
    new = [norm for norm in norms_of(body) if _is_untrained(norm)]
    if not new:
        return 0
    momenta = [norm.momentum for norm in new]
    body.eval()
    for norm in new:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # the mean over all images
    for x in images:
        boxes = torch.from_numpy(grid(x.shape[-1], x.shape[-2])).to(x.device)
        body.roi_features(body(x), boxes[:: max(1, len(boxes) // CALIBRATION_ROIS)])
    for norm, momentum in zip(new, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    return len(new)


def _is_untrained(norm: nn.BatchNorm2d) -> bool:
    assert norm.running_mean is not None and norm.running_var is not None
    return bool((norm.running_mean == 0).all() and (norm.running_var == 1).all())
