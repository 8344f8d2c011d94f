"""Any network of torchvision or timm as a backbone: some of its modules, and what its classifier reads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn

from ssltransfer.config.backbones.libraries import LibraryModel
from ssltransfer.config.base import suggest
from ssltransfer.models.backbone import Backbone, LayerError


class Library(Backbone):
    """A network of a library, whole but for its classifier.

    Layers: modules by their paths, each a map (B, C, H, W) or a vector (B, C), as it is when first called; pool, what
    the network gives without its classifier. Tensors have the library's names. Weights start as the library starts
    them, for its networks need not be ones that Kaiming's rule suits.

    Args:
        options: of the backbone.
        network: (B, 3, S, S) -> (B, C).

    Raises:
        LayerError: the network has no such module.
    """

    # Whether maps have their channels last.
    channels_last = False

    def __init__(self, options: LibraryModel, network: nn.Module, *, include_top: bool):
        super().__init__(options, include_top=include_top)
        self.network = network
        self.register_state_dict_post_hook(_out_of_the_wrapping)
        self.register_load_state_dict_pre_hook(_into_the_wrapping)
        paths = dict(network.named_modules())
        for path in options.return_nodes:
            if path not in paths:
                raise LayerError(f"{options.model} has no module {path!r}{suggest(path, filter(None, paths))}")

    def forward(self, x: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """See `Backbone`: nothing is computed beyond the last of the modules asked for.

        Raises:
            LayerError: the network has no such layer, or it gives neither a map nor a vector.
        """
        wanted = list(layers) if layers is not None else ["pool"]
        for layer in wanted:
            if layer not in self.layers:
                raise LayerError(f"{self.options.name} has no layer {layer!r}; it has {', '.join(self.layers)}.")
        found: dict[str, Tensor] = {}
        hooks = [
            self.network.get_submodule(layer).register_forward_hook(partial(self._note, found, layer, wanted))
            for layer in wanted
            if layer != "pool"
        ]
        try:
            pool = self.network(x)
            if "pool" in wanted:
                found["pool"] = pool
        except StopForward:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        if len(found) < len(set(wanted)):
            missing = next(layer for layer in wanted if layer not in found)
            raise LayerError(f"{self.options.name}: {missing} is not called on the way through; leave it out.")
        return {layer: found[layer] for layer in self.layers if layer in found}

    def _note(
        self, found: dict[str, Tensor], layer: str, wanted: list[str], module: nn.Module, given: Any, out: Any
    ) -> None:
        if layer in found:  # a module may be called again
            return
        if not isinstance(out, Tensor) or out.ndim not in (2, 4):
            shape = f"a tensor of {out.ndim} axes" if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise LayerError(
                f"{self.options.name}: {layer} gives {shape}, neither a map nor a vector; name another module."
            )
        if out.ndim == 4 and self.channels_last:
            out = out.permute(0, 3, 1, 2)
        # A copy: what comes next may work in place.
        found[layer] = out.clone()
        # What traces the network cannot follow it out of its middle, and milestones what nothing reads anyway.
        if set(wanted) <= found.keys() and not torch.compiler.is_compiling():
            raise StopForward

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """Not possible: modules need not stand in a row.

        Raises:
            LayerError: always.
        """
        raise LayerError(
            f"{self.options.name}: {layer} cannot be computed from the layer before; name a backbone in blocks."
        )

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch does it; tensors that come without a version of their layout are taken for those of this library."""
        given = OrderedDict(state_dict)
        given._metadata = getattr(state_dict, "_metadata", self.state_dict()._metadata)  # type: ignore[attr-defined]
        return super().load_state_dict(given, strict, assign)

    def reset_parameters(self) -> None:
        """The library has drawn the weights."""


def _out_of_the_wrapping(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """The library's names, so that files of weights fit."""
    wrapped = f"{prefix}network."
    for name in [name for name in state if name.startswith(wrapped)]:
        state[prefix + name.removeprefix(wrapped)] = state.pop(name)


def _into_the_wrapping(module: nn.Module, state: dict[str, Any], prefix: str, *others: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}network.{name.removeprefix(prefix)}"] = state.pop(name)


class StopForward(Exception):  # noqa: N818
    """All layers asked for are there."""


class Torchvision(Library):
    """A classification network of torchvision without its last linear layer; protocols 2.8."""

    def __init__(self, options: LibraryModel, *, include_top: bool = True, dropout: float = 0.0):
        model = options.model
        known = torchvision.models.list_models(module=torchvision.models)
        if model not in known:
            raise LayerError(f"torchvision has no classification network {model!r}{suggest(model, known)}")
        more: dict[str, Any] = {"image_size": options.img_size} if model.startswith("vit_") else {}
        more |= {"input_size": (options.img_size,) * 2} if model.startswith("maxvit") else {}
        more |= {"aux_logits": False, "init_weights": True} if model in ("googlenet", "inception_v3") else {}
        # RegNets count their channels in tensors, which would hold nothing on the meta device.
        place = torch.get_default_device()
        with torch.device("cpu") if model.startswith("regnet") else nullcontext():
            network = torchvision.models.get_model(model, weights=None, **more).to(place)
        super().__init__(options, _without_classifier(network, model), include_top=include_top)
        self.channels_last = model.startswith("swin")


def _without_classifier(network: nn.Module, model: str) -> nn.Module:
    """The network with its last linear layer, if that comes last, taken out."""
    weighted = [(path, part) for path, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    path, last = weighted[-1]
    if not isinstance(last, nn.Linear):
        raise LayerError(f"torchvision's {model} does not end with a linear layer; name another network.")
    network.set_submodule(path, nn.Identity())
    return network


class Timm(Library):
    """A network of timm without its classifier; protocols 2.8.

    Raises:
        LayerError: timm is not installed, or has no such network.
    """

    def __init__(self, options: LibraryModel, *, include_top: bool = True, dropout: float = 0.0):
        try:
            timm = import_module("timm")
        except ImportError:
            raise LayerError(
                f"backbone timm: {options.model} needs timm, which is not installed: pip install ssltransfer[timm]."
            ) from None
        if not timm.is_model(options.model):
            raise LayerError(f"timm has no network {options.model!r}{suggest(options.model, timm.list_models())}")
        more = {"img_size": options.img_size} if timm.get_pretrained_cfg(options.model).fixed_input_size else {}
        network = timm.create_model(options.model, pretrained=False, num_classes=0, **more)
        super().__init__(options, network, include_top=include_top)
        self.channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
