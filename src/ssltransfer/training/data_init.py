"""Data-dependent initialization (Krähenbühl et al. 2016, philkr/magic_init; protocols 4.1).

It rescales both learned and new layers, so that one learning rate suits all of them. First every channel of every
layer gets mean 0 and variance 1 before its ReLU. Then the layers are balanced: the gradient of each becomes the same
fraction of its weights.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssltransfer.artifacts.index import Index
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.data.rng import seed_of
from ssltransfer.logs import heartbeat, logger
from ssltransfer.models.backbone import BATCH_NORMS, Backbone, LayerError
from ssltransfer.models.normalize import normalize
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.training.devices import Devices

IMAGES, BATCH = 160, 16  # magic_init's ten batches of sixteen
ROUNDS = 10
CLOSE = 0.01  # balanced when the logarithms of the layers' gradient ratios differ from their mean by less
CONSTANT = 1e-6  # std, relative to the root mean square, below which a channel counts as constant


def init_from_data(model: PretrainedModel, index: Index, devices: Devices, seed: int) -> None:
    """Rescale the layers of a backbone, new ones too, by `IMAGES` images that are drawn from the index, in place.

    Images are prepared as for features. All processes get the weights of the first. Afterwards the backbone is on the
    CPU.

    Raises:
        LayerError: see `rescale`.
    """
    backbone = model.backbone.to(devices.device)
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(seed_of(seed, "rescale")))
    ids = sorted(order[:IMAGES].tolist())
    batches = [
        normalize(batch.images.to(devices.device), model.normalization)
        for batch in load_batches(
            index, model.view, sequential_keys(ids, BATCH), seed=seed, workers=devices.workers, pin=devices.cuda
        )
    ]
    with heartbeat(lambda: "rescaling layers"):
        rescale(backbone, batches, seed=seed_of(seed, "rescale"))
    devices.broadcast(backbone)
    backbone.cpu()
    logger.info(f"layers rescaled by {len(ids)} images")


def rescale(backbone: Backbone, batches: Sequence[Tensor], *, seed: int = 0) -> None:
    """Normalize within the layers, then balance between them, in place; the backbone is then in evaluation mode.

    `batches` are normalized images, float (B, 3, S, S) each; with fully-connected layers S is `img_size`.

    Raises:
        LayerError: the network has shortcuts or batch norms, or no gradient reaches a layer.
    """
    name = backbone.options.name
    if not backbone.options.is_feed_forward:
        raise LayerError(
            f"{name}: its layers have no scale of their own, as in residual networks; remove `data_dependent_init`."
        )
    if any(isinstance(module, BATCH_NORMS) for module in backbone.modules()):
        raise LayerError(f"{name} has batch norms, which undo every scale; fuse them first (`fuse_bn`).")
    backbone.eval()
    normalize_channels(backbone, batches)
    balance(backbone, batches, seed)


def weight_layers(backbone: Backbone) -> list[nn.Conv2d | nn.Linear]:
    """The modules with weights of a feed-forward backbone, one for each of `backbone.layers`."""
    return [module for module in backbone.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


@torch.no_grad()
def normalize_channels(backbone: Backbone, batches: Sequence[Tensor]) -> None:
    """Give each channel mean 0 and variance 1 before its ReLU, over images and positions, layer by layer, in place.

    A channel that is constant keeps its scale.
    """
    for name, layer in zip(backbone.layers, weight_layers(backbone), strict=True):
        mean, std = _channel_statistics(backbone, name, layer, batches)
        assert layer.bias is not None
        layer.weight /= std.view(-1, *[1] * (layer.weight.ndim - 1))
        layer.bias.copy_((layer.bias - mean) / std)


def _channel_statistics(
    backbone: Backbone, name: str, layer: nn.Module, batches: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Mean and std (1 if constant) of each channel before its ReLU, (C,) each."""
    sums: list[Tensor] = []

    def record(module: nn.Module, args: object, out: Tensor) -> None:
        # Summed at once: the ReLU after it works in place.
        values = out.transpose(0, 1).flatten(1).double()
        sums.append(
            torch.stack((torch.full_like(values[:, 0], values.shape[1]), values.sum(1), values.square().sum(1)))
        )

    hook = layer.register_forward_hook(record)
    for x in batches:
        backbone(x, [name])
    hook.remove()
    count, total, squares = torch.stack(sums).sum(0)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std > CONSTANT * (squares / count).sqrt(), std, torch.ones_like(std))
    weight = next(layer.parameters())
    return mean.to(weight), std.to(weight)


def balance(backbone: Backbone, batches: Sequence[Tensor], seed: int) -> None:
    """Scale the layers until their gradient ratios (`gradient_ratios`) equal the geometric mean of all, in place.

    A layer's weights are multiplied by r, its bias by the product of all r up to it, and the product of all r is 1.
    Where everything between the layers is homogeneous (ReLU, pooling), the network computes the same function. Local
    response normalization is only nearly homogeneous, hence the rounds.
    """
    layers = weight_layers(backbone)
    for _ in range(ROUNDS):
        ratios = gradient_ratios(backbone, batches, seed)
        for name, ratio in zip(backbone.layers, ratios.tolist(), strict=True):
            if not 0 < ratio < math.inf:
                raise LayerError(f"{backbone.options.name}: no gradient reaches {name}; remove `data_dependent_init`.")
        apart = ratios.log() - ratios.log().mean()
        if float(apart.abs().max()) < CLOSE:
            return
        product = 1.0
        with torch.no_grad():
            for layer, factor in zip(layers, (apart / 2).exp().tolist(), strict=True):
                product *= factor
                assert layer.bias is not None
                layer.weight *= factor
                layer.bias *= product


def gradient_ratios(backbone: Backbone, batches: Sequence[Tensor], seed: int) -> Tensor:
    """Root mean square of each layer's gradient divided by that of its weights, float64 (layers,).

    The gradient of the output is random, and the same one in each call with the same seed.
    """
    weights = [layer.weight for layer in weight_layers(backbone)]
    required = [weight.requires_grad for weight in weights]
    generator = torch.Generator().manual_seed(seed)
    squares = torch.zeros(len(weights), dtype=torch.float64)
    for weight in weights:
        weight.requires_grad_(True)
    with torch.enable_grad():
        for x in batches:
            out = backbone(x)[backbone.layers[-1]]
            noise = torch.randn(out.shape, generator=generator).to(out)
            gradients = torch.autograd.grad(out, weights, noise)
            squares += torch.stack([gradient.double().square().mean().cpu() for gradient in gradients])
    for weight, requires_grad in zip(weights, required, strict=True):
        weight.requires_grad_(requires_grad)
    sizes = torch.stack([weight.detach().double().square().mean().cpu() for weight in weights])
    return (squares / len(batches) / sizes).sqrt()
