"""Any network of torchvision, timm or your own as a backbone: layers are modules of it, and its output, `pool`."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from functools import cache, partial
from importlib import import_module
from io import StringIO
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn

from ssltransfer.config.backbones import libraries as config
from ssltransfer.config.base import ConfigError, content_digest, suggest
from ssltransfer.extras import import_extra
from ssltransfer.models.backbone import BACKBONES, Backbone, LayerError
from ssltransfer.models.leftovers import tensors_inside
from ssltransfer.models.normalize import Normalize, normalization_by_values

_EMBEDDINGS = ("patch_embed", "embeds", "stem")  # timm's names of the module that cuts an image into patches
_KINDS = ("weight", "bias", "running_mean", "running_var")


class Library(Backbone):
    """A network of a library without its classifier.

    Layers: modules by their paths, each with its output at its first call, a map (B, C, H, W) or a vector (B, C).
    pool is the output of the network without classifier, and representation, with `embed_dim`, is linear in it. Tokens
    (B, N, C) are maps without the prefix tokens; suffixes of the path select a token or the mean (`config.TOKENS`).
    Tensors have the library's names. The weights are initialized by the library, because Kaiming's initialization does
    not suit all of its networks.

    Raises:
        LayerError: the network has no such module.
    """

    channels_last = False  # maps are (B, H, W, C)

    def __init__(self, options: config.LibraryModel, network: nn.Module, *, include_top: bool):
        super().__init__(options, include_top=include_top)
        self.network = network
        self.register_state_dict_post_hook(_unwrap_names)
        self.register_load_state_dict_pre_hook(_wrap_names)
        paths = dict(network.named_modules())
        for layer in options.return_nodes:
            path, _ = _path_and_token(layer)
            if path not in paths:
                raise LayerError(f"{options.model} has no module {path!r}{suggest(path, filter(None, paths))}")
        if options.embed_dim:
            if hasattr(network, "representation"):
                raise LayerError(f"{options.model} has a module `representation` already; remove `embed_dim`.")
            image = torch.zeros(1, 3, options.img_size, options.img_size, device=next(network.parameters()).device)
            with torch.no_grad():
                self.add_representation(self.output(network.eval()(image)).shape[1])
            network.train()

    def output(self, features: Tensor) -> Tensor:
        """The output of the network, `pool`."""
        return features

    def forward(self, x: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """See `Backbone`.

        Raises:
            LayerError: the network has no such layer, or its output is neither a map nor a vector nor tokens of a map.
        """
        names = list(layers) if layers is not None else [self.layers[-1]]
        self.require(names, self.options.name)
        wanted = [name for name in names if name != "representation"]
        if "representation" in names and "pool" not in names:
            wanted.append("pool")
        features: dict[str, Tensor] = {}
        hooks = [
            self.network.get_submodule(_path_and_token(layer)[0]).register_forward_hook(
                partial(self._record, features, layer, wanted, (x.shape[2], x.shape[3]))
            )
            for layer in wanted
            if layer != "pool"
        ]
        try:
            pool = self.network(x)
            if "pool" in wanted:
                features["pool"] = self.output(pool)
        except StopForward:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        for layer in wanted:
            if layer not in features:
                raise LayerError(f"{self.options.name}: {layer} is not called in the forward pass; remove it.")
        if "representation" in names:
            features["representation"] = self.representation(features["pool"])
        return {layer: features[layer] for layer in self.layers if layer in names}

    def _record(
        self,
        features: dict[str, Tensor],
        layer: str,
        names: list[str],
        size: tuple[int, int],
        module: nn.Module,
        args: Any,
        out: Any,
    ) -> None:
        if layer in features:  # a module may be called again
            return
        prefix: Tensor | None = None
        tokens = isinstance(out, Tensor) and out.ndim == 3 and self._split_tokens(out, size)
        if tokens:
            prefix, out = tokens
        elif not isinstance(out, Tensor) or out.ndim not in (2, 4):
            shape = f"a tensor of {out.ndim} axes" if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise LayerError(
                f"{self.options.name}: {layer} gives {shape}, neither a map nor a vector; name another module."
            )
        elif out.ndim == 4 and (self.channels_last or self._is_token_grid(out, size)):
            out = out.permute(0, 3, 1, 2)
        out = _selected(out, prefix, layer, self.options.name)
        features[layer] = out.clone()  # the next module may work in place
        # torch.export cannot trace the exception, and removes unused code itself.
        if set(names) <= features.keys() and not torch.compiler.is_compiling():
            raise StopForward

    def _split_tokens(self, tokens: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        """Tokens (B, N, C) for images of this size -> prefix tokens (B, P, C), and the map (B, C, h, w) of the others.

        None if the network has another number of patches.
        """
        grid = self._grid(size)
        if grid is None:
            return None
        prefix = tokens.shape[1] - grid[0] * grid[1]
        # Some networks add the class token to the last blocks only.
        if prefix not in (0, self.num_prefix_tokens):
            return None
        return tokens[:, :prefix], tokens[:, prefix:].transpose(1, 2).unflatten(2, grid)

    def _is_token_grid(self, out: Tensor, size: tuple[int, int]) -> bool:
        """Whether a map is (B, H, W, C): tokens of a network that keeps them so (SAM)."""
        output = getattr(getattr(self.network, "patch_embed", None), "output_fmt", "NCHW")
        return output == "NHWC" and tuple(out.shape[1:3]) == self._grid(size)

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before those of the patches: class, distillation and register tokens."""
        return int(getattr(self.network, "num_prefix_tokens", 0))

    def _grid(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """Rows and columns of the patches of an image of this size; None if the network has no such patches."""
        embed: Any = next(
            (part for name in _EMBEDDINGS if (part := getattr(self.network, name, None)) is not None), None
        )
        if hasattr(embed, "dynamic_feat_size"):
            rows, columns = embed.dynamic_feat_size(size)
            return int(rows), int(columns)
        patch = getattr(embed, "patch_size", None)
        sides = (patch, patch) if isinstance(patch, int) else patch
        return (size[0] // sides[0], size[1] // sides[1]) if sides else None

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """Not supported: the modules need not be sequential."""
        raise LayerError(
            f"{self.options.name}: {layer} cannot be computed from the layer before; name a backbone in blocks."
        )

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As in torch; state dicts without metadata are read with the metadata of the installed library."""
        tensors = OrderedDict(state_dict)
        tensors._metadata = getattr(state_dict, "_metadata", self.state_dict()._metadata)  # type: ignore[attr-defined]
        return super().load_state_dict(tensors, strict, assign)

    def reset_parameters(self) -> None:
        """Nothing: the library has initialized the weights."""


def _path_and_token(layer: str) -> tuple[str, str]:
    """The path of a layer's module, and the token that the layer is: cls, prefix1, mean, or "" for all."""
    match = config.TOKENS.match(layer)
    return (match["path"], match["token"]) if match else (layer, "")


def _selected(out: Tensor, prefix: Tensor | None, layer: str, name: str) -> Tensor:
    """A layer of a module with this map or vector and these prefix tokens (B, P, C).

    Raises:
        LayerError: the module has no such token, or no map.
    """
    _, token = _path_and_token(layer)
    if not token:
        return out
    if token == "mean":
        if out.ndim != 4:
            raise LayerError(f"{name}: {layer} is the mean of a vector; name the module without `.mean`.")
        return out.mean((2, 3))
    number = int(token.removeprefix("prefix")) if token != "cls" else 0
    if prefix is None or number >= prefix.shape[1]:
        count = 0 if prefix is None else prefix.shape[1]
        raise LayerError(f"{name}: {layer} is one of {count} prefix tokens of this module; name `.mean` or the map.")
    return prefix[:, number]


def _unwrap_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Use the library's tensor names, so that published weights fit."""
    wrapped = f"{prefix}network."
    for name in [name for name in state if name.startswith(prefix)]:  # all of them, which keeps their order
        value = state.pop(name)
        state[prefix + name.removeprefix(wrapped) if name.startswith(wrapped) else name] = value


def _wrap_names(module: nn.Module, state: dict[str, Any], prefix: str, *others: Any) -> None:
    own = tuple(f"{prefix}{name}." for name, _ in module.named_children() if name != "network")
    for name in [name for name in state if name.startswith(prefix) and not name.startswith(own)]:
        state[f"{prefix}network.{name.removeprefix(prefix)}"] = state.pop(name)


class StopForward(Exception):  # noqa: N818
    """All requested layers are computed."""


@BACKBONES.register(config.Torchvision)
class Torchvision(Library):
    """A classification network of torchvision without its last linear layer; protocols 2.8."""

    def __init__(self, options: config.LibraryModel, *, include_top: bool = True, dropout: float = 0.0):
        model = options.model
        known = torchvision.models.list_models(module=torchvision.models)
        if model not in known:
            raise LayerError(f"torchvision has no classification network {model!r}{suggest(model, known)}")
        more: dict[str, Any] = {"image_size": options.img_size} if model.startswith("vit_") else {}
        more |= {"input_size": (options.img_size,) * 2} if model.startswith("maxvit") else {}
        more |= {"aux_logits": False, "init_weights": True} if model in ("googlenet", "inception_v3") else {}
        # RegNets compute their channels with tensors, which have no values on the meta device.
        device = torch.get_default_device()
        with torch.device("cpu") if model.startswith("regnet") else nullcontext():
            network = torchvision.models.get_model(model, weights=None, **more).to(device)
        super().__init__(options, _without_classifier(network, model), include_top=include_top)
        self.channels_last = model.startswith("swin")

    @property
    def num_prefix_tokens(self) -> int:
        """The class token of a vision transformer."""
        return int(hasattr(self.network, "class_token"))

    def _grid(self, size: tuple[int, int]) -> tuple[int, int] | None:
        patch = getattr(self.network, "patch_size", None)
        return (size[0] // patch, size[1] // patch) if isinstance(patch, int) else None


def model_of_torchvision(tensors: Mapping[str, Tensor]) -> str | None:
    """The first network of torchvision whose tensors, but for its classifier, all occur under one prefix, without more.

    RegNets are not tried, because their networks cannot be built without memory for their weights.
    """
    for model, state in _torchvision_states().items():
        shapes = {name: value.shape for name, value in list(state.items())[:-2] if name.split(".")[-1] in _KINDS}
        first = next(iter(shapes))
        prefixes = {name.removesuffix(first) for name in tensors if name == first or name.endswith(f".{first}")}
        for prefix in prefixes:
            found = {name: tensors[prefix + name].shape for name in shapes if prefix + name in tensors}
            if found == shapes and not tensors_inside(state, tensors, prefix):
                return model
    return None


@cache
def _torchvision_states() -> dict[str, dict[str, Tensor]]:
    """Tensors without memory by the name of the network."""
    states = {}
    for model in torchvision.models.list_models(module=torchvision.models, exclude="regnet*"):
        more = {"init_weights": False} if model in ("googlenet", "inception_v3") else {}
        with torch.device("meta"):
            states[model] = torchvision.models.get_model(model, weights=None, **more).state_dict()
    return states


def converted_by_timm(backbone: Backbone, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Published tensors under timm's names, by its own conversion of this network (DINOv3, CLIP, ConvNeXt, Swin).

    None for other backbones, and if timm has no conversion or it fails. Prefixes are not detected.
    """
    if not isinstance(backbone, Timm):
        return None
    convert = getattr(import_module(type(backbone.network).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return None
    try:
        # timm prints what it tries. It resamples tables, also for a network without memory for its weights.
        with redirect_stdout(StringIO()), torch.device("cpu"):
            return dict(convert(dict(tensors), backbone.network))
    except Exception:  # it expects published names
        return None


def timm_models_with_registers(model: str, tensors: Mapping[str, Tensor]) -> list[str]:
    """Networks of timm that are `model` with the register tokens of a file; none if the file has no such tokens."""
    registers = [value for name, value in tensors.items() if name.split(".")[-1] in ("reg_token", "register_tokens")]
    if not registers:
        return []
    parts = {*model.partition(".")[0].split("_"), f"reg{registers[0].shape[1]}"}
    timm = import_extra("timm", "timm", f"backbone timm: {model}")
    return [other for other in timm.list_models() if parts == set(other.split("_"))]


def normalizations_of_timm(model: str) -> list[Normalize]:
    """The different normalizations that timm records for its weights of a network; of one, if `model` has a tag."""
    timm = import_extra("timm", "timm", f"backbone timm: {model}")
    names = [model] if "." in model else timm.list_pretrained(f"{model}.*")
    found: list[Normalize] = []
    for record in map(timm.get_pretrained_cfg, names):
        normalization = normalization_by_values(record.mean, record.std)
        if normalization not in found:
            found.append(normalization)
    return found


def _without_classifier(network: nn.Module, model: str) -> nn.Module:
    """The network with its last linear layer, which must be the last module with weights, replaced by an identity."""
    path, last = [item for item in network.named_modules() if isinstance(item[1], nn.Linear | nn.Conv2d)][-1]
    if not isinstance(last, nn.Linear):
        raise LayerError(f"torchvision's {model} does not end with a linear layer; name another network.")
    network.set_submodule(path, nn.Identity())
    return network


@BACKBONES.register(config.Timm)
class Timm(Library):
    """A network of timm without its classifier; protocols 2.8.

    Raises:
        LayerError: timm has no such network.
        MissingExtraError: timm is not installed.
    """

    def __init__(self, options: config.LibraryModel, *, include_top: bool = True, dropout: float = 0.0):
        timm = import_extra("timm", "timm", f"backbone timm: {options.model}")
        if not timm.is_model(options.model):
            raise LayerError(f"timm has no network {options.model!r}{suggest(options.model, timm.list_models())}")
        more = {"img_size": options.img_size} if timm.get_pretrained_cfg(options.model).fixed_input_size else {}
        network = timm.create_model(options.model, pretrained=False, num_classes=0, **more)
        super().__init__(options, network, include_top=include_top)
        self.channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"


@BACKBONES.register(config.Custom)
class Custom(Library):
    """A network of your own; protocols 2.9.

    Raises:
        ConfigError: there is no such module or callable, it does not take the options, it returns no torch module, or
            its file has changed since the configuration was read.
        LayerError: the network does not return (B, C).
    """

    def __init__(self, options: config.Custom, *, include_top: bool = True, dropout: float = 0.0):
        super().__init__(options, _own_network(options), include_top=include_top)

    def output(self, features: Any) -> Tensor:
        """See `Library`."""
        if not (isinstance(features, Tensor) and features.ndim == 2):
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise LayerError(f"{self.options.slug}: the network returns {shape}; return features of shape (B, C).")
        return features


def _own_network(options: config.Custom) -> nn.Module:
    module, _, name = options.model.partition(":")
    where = f"backbone custom: {options.model}"
    file = config.module_file(module)
    if file is None:
        raise ConfigError(f"{where}: no module {module!r}; install it, or put {module}.py into the working directory.")
    if options.digest and content_digest(str(file)) != options.digest:
        raise ConfigError(f"{file}: has changed since the configuration was read; run snakemake again.")
    found = import_module(module)
    if not callable(build := getattr(found, name, None)):
        raise ConfigError(f"{where}: {module} has no callable {name!r}{suggest(name, vars(found))}")
    try:
        network = build(**dict(options.options))
    except TypeError as error:
        raise ConfigError(f"{where}: cannot be called with these `options` ({error}).") from None
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{where}: returns a {type(network).__name__}, not a torch module.")
    return network
