"""What every backbone is: named layers in order, computed only as far as asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.errors import UserError

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class LayerError(UserError):
    """A layer was asked for that the network does not have."""


class Backbone(nn.Module, ABC):
    """A network without its classifier.

    Attributes:
        options: what it was built from.
        layers: names of the layers that can be asked for, in order.
    """

    def __init__(self, options: BackboneOptions, *, include_top: bool):
        super().__init__()
        self.options = options
        self.layers: tuple[str, ...] = options.layers if include_top else options.base_layers

    def require(self, layers: Sequence[str], where: object) -> None:
        """Refuse layers that are not there.

        Args:
            layers: names.
            where: what the model is called in the message.

        Raises:
            LayerError: the network has no such layer.
        """
        for layer in layers:
            if layer not in self.layers:
                raise LayerError(f"{where}: no layer {layer!r}; it has {', '.join(self.layers)}.")

    def forward(self, x: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Activations of the layers asked for; nothing beyond the last of them is computed.

        Args:
            x: float (B, 3, S, S), normalized.
            layers: names; the last layer when left out.

        Raises:
            LayerError: the network has no such layer.
        """
        wanted = list(layers) if layers is not None else [self.layers[-1]]
        self.require(wanted, self.options.name)
        last = max(map(self.layers.index, wanted))
        found = {}
        for name in self.layers[: last + 1]:
            x = self.forward_layer(name, x)
            if name in wanted:
                found[name] = x
        return found

    @abstractmethod
    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """From the layer before to this one."""

    def reset_parameters(self) -> None:
        """Draw fresh weights: Kaiming's, and more in networks whose form asks for it."""
        initialize(self)

    @torch.no_grad()
    def shapes(self, size: int | None = None) -> dict[str, tuple[int, ...]]:
        """Shape of each layer for one image of the backbone's own size (or another), without the batch."""
        # A real pass: torch's shapes without values (the meta device) import compilers for four seconds.
        size = size or self.options.img_size
        was = self.training
        self.eval()
        found = self(torch.zeros(1, 3, size, size, device=next(iter(self.state_dict().values())).device), self.layers)
        self.train(was)
        return {name: tuple(value.shape[1:]) for name, value in found.items()}


class ZeroPaddedMaxPool(nn.MaxPool2d):
    """Maximum pooling whose border is zeros, so that none of its values there is below zero: TensorFlow's padding."""

    def forward(self, input: Tensor) -> Tensor:
        """float (B, C, H, W) -> (B, C, about H / stride, about W / stride)."""
        assert isinstance(self.padding, int)
        padded = F.pad(input, [self.padding] * 4)
        if torch.compiler.is_compiling():
            # ONNX Runtime makes a padding one with the pooling behind it, whose border is below everything, not zero.
            padded = input
            for axis in (2, 3):
                border = torch.zeros_like(padded.narrow(axis, 0, self.padding))
                padded = torch.cat([border, padded, border], axis)
        return F.max_pool2d(padded, self.kernel_size, self.stride)


def scaled(channels: int, width: float) -> int:
    """Channels at a width: a multiple of 8, at least 8, so that groups and tensor cores divide it."""
    return max(8, round(channels * width / 8) * 8)


def initialize(module: nn.Module) -> None:
    """Kaiming's normal initialization, biases zero, norms one: for every network that starts from nothing.

    The released Caffe networks draw N(0, 0.01) and set some biases to 1; with that a small network stays at the loss
    of chance for long, and the choice makes no difference to what is learned at length.
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
    """N(0, 0.01) for the layer that gives the logits (fc8 of the Caffe networks): the first loss is the chance level.

    Kaiming's deviation would begin with confident wrong answers, whose gradient silences much of a network without
    batch normalization.
    """
    assert layer.bias is not None
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
