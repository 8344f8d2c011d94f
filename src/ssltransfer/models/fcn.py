"""Fully convolutional networks: class scores for each pixel, from any backbone (protocols 4.3).

Long, Shelhamer & Darrell 2015 and their voc-fcn-alexnet, voc-fcn32s: the stream of stride 32, whose scores are
upsampled by fixed bilinear weights and cropped so that they are aligned with the image.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.models.backbone import Backbone, LayerError
from ssltransfer.models.fuse_bn import fuse_conv_bn

WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Window:
    """A convolution or pooling along one axis; with `ceil` a last partial window counts."""

    kernel: int
    stride: int
    padding: int
    ceil: bool = False

    def cells(self, length: int) -> int:
        """Number of outputs for an input of this length, as in torch; 0 or less if the window does not fit."""
        room = length + 2 * self.padding - self.kernel
        last = -(-room // self.stride) if self.ceil else room // self.stride
        if self.ceil and last * self.stride >= length + self.padding:  # would start after the image
            last -= 1
        return last + 1


@dataclass(frozen=True)
class Grid:
    """Positions of a map's cells in the image, along one axis: cell i is centered on pixel `first + i * stride`.

    Attributes:
        windows: the convolutions and poolings from the image to the map, in order.
    """

    windows: tuple[Window, ...]

    @property
    def stride(self) -> int:
        """Pixels from cell to cell."""
        return math.prod(window.stride for window in self.windows)

    @property
    def first(self) -> float:
        """Center of the first cell in pixels, an integer or a half; 0 is the center of the first pixel."""
        first, step = 0.0, 1
        for window in self.windows:
            first += step * ((window.kernel - 1) / 2 - window.padding)
            step *= window.stride
        return first

    @property
    def kernel(self) -> int:
        """Side of the bilinear kernel: 2 strides, or one pixel less if cells are centered on pixels.

        So the crop is an integer: 64 for the published VGG, 63 for the published AlexNet.
        """
        return 2 * self.stride - int(self.first.is_integer())

    @property
    def crop(self) -> int:
        """Pixels of the upsampled scores before the image: 19 for the published VGG, 18 for the AlexNet."""
        return int((self.kernel - 1) / 2 - self.first)

    def covers(self, length: int) -> bool:
        """Whether the kernels cover every pixel of a side of this length."""
        cells = length
        for window in self.windows:
            cells = window.cells(cells)
            if cells < 1:
                return False
        return self.crop >= 0 and self.crop + length <= (cells - 1) * self.stride + self.kernel


class Fcn(nn.Module):
    """FCN-32s of a backbone: pixel scores (B, 3, H, W) -> (B, classes, H, W) for images of any size.

    If poolings have no padding (AlexNets, VGGs), the image is padded by `padding`, and they round up as in Caffe. With
    fully-connected layers (CaffeNet, AlexNet, VGG16) fc6 becomes a convolution over its input for an image of
    `img_size` (6x6 cells, VGG 7x7, at the published size), and fc7 a 1x1 convolution, each followed by dropout. An
    adaptive average before fc6 and the batch norms of both are fused into their weights. Without fully-connected
    layers (ResNets) the scores are computed from the last block's map.

    The scores start at zero. Beyond the outermost cells all scores decay alike, so the argmax is that of the edge.

    Args:
        backbone: with its fully-connected layers, if any; its modules are used, not copied.
        classes: number of scores.
        padding: of the first convolution, for backbones whose poolings have no padding.
        dropout: probability.

    Raises:
        LayerError: fc6 is missing, or the cells do not cover some pixels.
    """

    kernel: Tensor

    def __init__(self, backbone: Backbone, classes: int, *, padding: int = 100, dropout: float = 0.5):
        super().__init__()
        options = backbone.options
        if options.top_layers and backbone.layers != options.layers:
            raise LayerError(f"{options.name} without {', '.join(options.top_layers)} gives no scores; add them.")
        self.backbone = backbone
        if not options.supports_layerwise_forward:
            raise LayerError(
                f"{options.name}: the positions of its cells in the image are unknown; name another backbone."
            )
        self.layer = options.spatial_layers[-1]
        channels, side, _ = backbone.shapes()[self.layer]
        windowed = _windowed_modules(backbone, self.layer)
        self.head = nn.Sequential()
        if options.top_layers:
            fuse_conv_bn(backbone, linear_only=True)
            last = [module for module in backbone.modules() if isinstance(module, nn.MaxPool2d)][-1]
            windowed.append(last)
            seen = last(torch.zeros(1, 1, side, side)).shape[-1]
            fc6, fc7 = _as_convolutions(backbone, channels, seen)
            self.head.append(last)
            for layer in (fc6, fc7):
                self.head.extend([layer, nn.ReLU(inplace=True), nn.Dropout(dropout)])
            windowed += [fc6, fc7]
            channels = fc7.out_channels
        poolings = [module for module in windowed if isinstance(module, nn.MaxPool2d)]
        if not all(module.padding for module in poolings):
            stem = windowed[0]
            assert isinstance(stem, nn.Conv2d)
            stem.padding = (padding, padding)
            for module in poolings:
                module.ceil_mode = True
        self.score = nn.Conv2d(channels, classes, 1)
        nn.init.zeros_(self.score.weight)
        assert self.score.bias is not None
        nn.init.zeros_(self.score.bias)
        self.grid = Grid(tuple(map(_window, windowed)))
        if not all(map(self.grid.covers, range(1, 2 * self.grid.stride + 1))):
            raise LayerError(
                f"{options.name}: the cells of its map do not cover the edges of an image; raise `padding` "
                f"({padding}) of the segmentation, or lower the backbone's stem_stride."
            )
        line = 1 - (torch.arange(self.grid.kernel) - (self.grid.kernel - 1) / 2).abs() / self.grid.stride
        self.register_buffer("kernel", line.outer(line)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized float (B, 3, H, W) -> logits, at least float32, (B, classes, H, W)."""
        return self.upsample(self.cells(x), *x.shape[-2:])

    def cells(self, x: Tensor) -> Tensor:
        """Normalized float (B, 3, H, W) -> scores of the map's cells (B, classes, h, w)."""
        scores: Tensor = self.score(self.head(self.backbone(x, [self.layer])[self.layer]))
        return scores

    def upsample(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Scores of cells (B, C, h, w) -> of pixels (B, C, height, width)."""
        with torch.autocast(scores.device.type, enabled=False):
            planes = scores.flatten(0, 1)[:, None].to(self.kernel.dtype)
            upsampled = F.conv_transpose2d(planes, self.kernel, stride=self.grid.stride)
        rows, columns = (slice(self.grid.crop, self.grid.crop + side) for side in (height, width))
        return upsampled[:, 0, rows, columns].unflatten(0, scores.shape[:2])


@torch.no_grad()
def _windowed_modules(backbone: Backbone, layer: str) -> list[nn.Module]:
    """Convolutions and poolings from the image to a layer, in order, without those of shortcuts."""
    modules: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, args, out: modules.append(module))
        for name, module in backbone.named_modules()
        if isinstance(module, WINDOWED) and not {"downsample", "shortcut"} & set(name.split("."))
    ]
    was_training, size = backbone.training, backbone.options.img_size
    backbone.eval()(torch.zeros(1, 3, size, size).to(next(backbone.parameters())), [layer])
    backbone.train(was_training)
    for hook in hooks:
        hook.remove()
    return modules


def _as_convolutions(backbone: Backbone, channels: int, side: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """fc6 and fc7 as convolutions over side x side cells and over one; they are removed from the backbone."""
    linear = [(name, module) for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    for name, _ in linear:
        backbone.set_submodule(name, nn.Identity())
    backbone.layers = backbone.options.base_layers
    (_, fc6), (_, fc7) = linear
    cells = math.isqrt(fc6.in_features // channels)
    # The adaptive average along one axis as a matrix: column i has the weights of the cells in average i.
    averages = F.adaptive_avg_pool1d(torch.eye(side)[None], cells)[0].to(fc6.weight)
    over_map = fc6.weight.detach().unflatten(1, (channels, cells, cells))
    return (
        _convolution(torch.einsum("ocij,hi,wj->ochw", over_map, averages, averages), fc6),
        _convolution(fc7.weight.detach()[:, :, None, None], fc7),
    )


def _convolution(weight: Tensor, linear: nn.Linear) -> nn.Conv2d:
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[-1])
    layer.weight, layer.bias = nn.Parameter(weight.contiguous()), nn.Parameter(linear.bias.detach())
    return layer


def _window(module: nn.Module) -> Window:
    assert isinstance(module, WINDOWED)
    reach = 1 if isinstance(module, nn.AvgPool2d) else module.dilation
    kernel, stride, padding, dilation = (
        int(value if isinstance(value, int) else value[0])
        for value in (module.kernel_size, module.stride, module.padding, reach)
    )
    ceil = not isinstance(module, nn.Conv2d) and module.ceil_mode
    return Window((kernel - 1) * dilation + 1, stride, padding, ceil)
