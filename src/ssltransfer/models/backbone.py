"""The base class of backbones: named layers in order, computed only as far as needed."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.backbones.base import BackboneOptions, BatchNormOptions, EmbeddingOptions
from ssltransfer.errors import UserError
from ssltransfer.registry import Registry

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def move(module: nn.Module, device: torch.device) -> None:
    """Move a frozen module to a device.

    Takes no time if it is there already. torch's own `to` takes milliseconds.
    """
    if any(parameter.device != device for parameter in module.parameters()):
        module.to(device)


class LayerError(UserError):
    """The network does not have or support the requested layer."""


class Backbone(nn.Module, ABC):
    """A network without its classifier.

    `include_top`: with `options.top_layers` (fc6 and fc7), if there are any, and this dropout probability in them.

    Attributes:
        layers: names of its layers, in order.
    """

    def __init__(self, options: BackboneOptions, *, include_top: bool = True, dropout: float = 0.0):
        super().__init__()
        self.options = options
        self.layers: tuple[str, ...] = options.layers if include_top else options.base_layers

    @property
    def include_top(self) -> bool:
        """Whether it has all layers of its options."""
        return self.layers == self.options.layers

    def add_representation(self, channels: int) -> None:
        """Add the linear layer `representation` to the vector before it, if the options have `embed_dim`."""
        if isinstance(self.options, EmbeddingOptions) and self.options.embed_dim:
            self.representation = nn.Linear(channels, self.options.embed_dim)

    def require(self, layers: Sequence[str], where: object) -> None:
        """Raise `LayerError`, whose message begins with `where`, if one of these layers does not exist."""
        for layer in layers:
            if layer not in self.layers:
                raise LayerError(f"{where}: no layer {layer!r}; it has {', '.join(self.layers)}.")

    def forward(self, x: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Features of some layers (default: the last one) by name. Nothing after the last of them is computed.

        Normalized images, float (B, 3, S, S) -> float (B, C, H, W) or (B, C) each.

        Raises:
            LayerError: the network has no such layer.
        """
        names = list(layers) if layers is not None else [self.layers[-1]]
        self.require(names, self.options.name)
        features = {}
        for name in self.layers[: max(map(self.layers.index, names)) + 1]:
            x = self.forward_layer(name, x)
            if name in names:
                features[name] = x
        return features

    @abstractmethod
    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """Features of a layer from those of the layer before it (for the first one: from images)."""

    def reset_parameters(self) -> None:
        """Initialize the weights randomly (`initialize`)."""
        initialize(self)

    @torch.no_grad()
    def shapes(self, size: int | tuple[int, int] | None = None) -> dict[str, tuple[int, ...]]:
        """Shape of each layer's features without the batch axis.

        `size` of the images is a side (default: `img_size`), or height and width.
        """
        # A real pass: torch's shapes without values (the meta device) import compilers for four seconds.
        size = size or self.options.img_size
        height, width = (size, size) if isinstance(size, int) else size
        was_training = self.training
        device = next(iter(self.state_dict().values())).device
        features = self.eval()(torch.zeros(1, 3, height, width, device=device), self.layers)
        self.train(was_training)
        return {name: tuple(value.shape[1:]) for name, value in features.items()}


BACKBONES: Registry[type[Backbone]] = Registry("ssltransfer.models")


class ZeroPaddedMaxPool(nn.MaxPool2d):
    """Maximum pooling with zero padding, as in TensorFlow (torch pads with minus infinity)."""

    def forward(self, input: Tensor) -> Tensor:
        """float (B, C, H, W) -> (B, C, about H / stride, about W / stride)."""
        assert isinstance(self.padding, int)
        padded = F.pad(input, [self.padding] * 4)
        if torch.compiler.is_exporting():
            # ONNX Runtime would fuse F.pad into the pooling, which pads with minus infinity.
            padded = input
            for axis in (2, 3):
                border = torch.zeros_like(padded.narrow(axis, 0, self.padding))
                padded = torch.cat([border, padded, border], axis)
        return F.max_pool2d(padded, self.kernel_size, self.stride)


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 8 (at least 8) for groups and tensor cores.

    >>> scaled(96, 0.25), scaled(96, 0.02)
    (24, 8)
    """
    return max(8, round(channels * width / 8) * 8)


def apply_batch_norm_options(network: nn.Module, options: BatchNormOptions) -> None:
    """Set eps and momentum of all batch norms in place, as in TensorFlow (protocols 2.3b)."""
    for module in network.modules():
        if isinstance(module, BATCH_NORMS):
            module.eps, module.momentum = 1e-3, options.norm_momentum


def initialize(module: nn.Module) -> None:
    """Kaiming's normal initialization (fan-in), zero biases, unit norms.

    The released Caffe networks draw N(0, 0.01) and set some biases to 1. With that, a small network stays at the
    chance-level loss for long; after long training the choice makes no difference.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, BATCH_NORMS) and layer.affine:
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def initialize_last(layer: nn.Linear | nn.Conv2d) -> None:
    """N(0, 0.01) for the layer of the logits, as for fc8 of the Caffe networks: the first loss is the chance level.

    Kaiming's std would begin with confident wrong answers, whose gradient kills many units of a network without batch
    normalization.
    """
    assert layer.bias is not None
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
