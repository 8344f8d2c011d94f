"""Data-dependent rescaling of a feed-forward network (Krähenbühl et al. 2016, philkr/magic_init; protocols 4.1).

So that layers, learned or not, are fit for one learning rate: first every channel of every layer has mean zero and
unit variance before its ReLU, then all layers change by the same share of their weights in a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssltransfer.models.backbone import BATCH_NORMS, Backbone, LayerError

ROUNDS = 10
CLOSE = 0.01  # of the logarithms of the layers' ratios, when the balance is good enough
CONSTANT = 1e-6  # std, in shares of the root mean square, of a channel that does not change


def rescale(backbone: Backbone, batches: Sequence[Tensor], *, seed: int = 0) -> None:
    """Normalize within the layers, then balance between them; in place.

    Args:
        backbone: convolutions and fully-connected layers in a row, without batch norms.
        batches: normalized float (B, 3, S, S) each, S the backbone's own size where it has fully-connected layers.
        seed: of the gradients that `balance` sends back.

    Raises:
        LayerError: the network is residual or has batch norms, or no gradient reaches a layer.
    """
    chain = Chain(backbone)
    unit_variance(chain, batches)
    balance(chain, batches, seed)


class Chain:
    """Layers with weights in their order, and how to compute as far as one of them; in evaluation mode."""

    def __init__(self, backbone: Backbone):
        name = backbone.options.name
        if not backbone.options.is_feed_forward:
            raise LayerError(
                f"{name}: a layer's scale is not its own, as in residual networks; leave `data_dependent_init` out."
            )
        if any(isinstance(module, BATCH_NORMS) for module in backbone.modules()):
            raise LayerError(f"{name} has batch norms, which undo every scale; fold them in first (`fuse_bn`).")
        self.backbone = backbone.eval()
        self.layers = [module for module in backbone.modules() if isinstance(module, nn.Conv2d | nn.Linear)]

    def run(self, x: Tensor, place: int) -> Tensor:
        """float (B, 3, S, S) -> activations up to the layer at this place, after its ReLU."""
        name = self.backbone.layers[place]
        found: Tensor = self.backbone(x, [name])[name]
        return found


@torch.no_grad()
def unit_variance(chain: Chain, batches: Sequence[Tensor]) -> None:
    """Weights and biases such that each channel has mean 0 and variance 1 before its ReLU, layer by layer.

    Over the images and, of convolutions, all places. A channel that never changes keeps its scale.
    """
    for place, layer in enumerate(chain.layers):
        mean, std = _statistics(chain, place, batches)
        assert layer.bias is not None
        layer.weight /= std.view(-1, *[1] * (layer.weight.ndim - 1))
        layer.bias.copy_((layer.bias - mean) / std)


def _statistics(chain: Chain, place: int, batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and std of each channel before its ReLU; of one that never changes, but for rounding, 1."""
    sums: list[Tensor] = []

    def note(layer: nn.Module, given: object, found: Tensor) -> None:
        # Here and now: the ReLU behind works in place.
        values = found.transpose(0, 1).flatten(1).double()
        sums.append(
            torch.stack((torch.full_like(values[:, 0], values.shape[1]), values.sum(1), values.square().sum(1)))
        )

    hook = chain.layers[place].register_forward_hook(note)
    for x in batches:
        chain.run(x, place)
    hook.remove()
    count, total, squares = torch.stack(sums).sum(0)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std > CONSTANT * (squares / count).sqrt(), std, torch.ones_like(std))
    weight = chain.layers[place].weight
    return mean.to(weight), std.to(weight)


def balance(chain: Chain, batches: Sequence[Tensor], seed: int) -> None:
    """Scale each layer until the sizes of all gradients, in shares of the weights, are alike: their geometric mean.

    A layer's weights times r, and biases times all r so far, multiply what comes out of the network by the product of
    all r, which is one: where everything between the layers is homogeneous (ReLU, pooling), the network computes what
    it did. Local response normalization is so only nearly; hence the rounds.
    """
    for _ in range(ROUNDS):
        ratios = _ratios(chain, batches, seed)
        for name, ratio in zip(chain.backbone.layers, ratios.tolist(), strict=True):
            if not 0 < ratio < float("inf"):
                raise LayerError(
                    f"{chain.backbone.options.name}: no gradient reaches {name}; leave `data_dependent_init` out."
                )
        apart = ratios.log() - ratios.log().mean()
        if float(apart.abs().max()) < CLOSE:
            return
        carried = 1.0
        with torch.no_grad():
            for layer, factor in zip(chain.layers, (apart / 2).exp().tolist(), strict=True):
                carried *= factor
                assert layer.bias is not None
                layer.weight *= factor
                layer.bias *= carried


def _ratios(chain: Chain, batches: Sequence[Tensor], seed: int) -> Tensor:
    """Root of the mean square of each layer's gradient over that of its weights, float64 (layers,).

    For a random gradient of the output, the same one whenever it is asked: what is left to balance is then no chance.
    """
    weights = [layer.weight for layer in chain.layers]
    learned = [weight.requires_grad for weight in weights]
    generator = torch.Generator().manual_seed(seed)
    squares = torch.zeros(len(weights), dtype=torch.float64)
    for weight in weights:
        weight.requires_grad_(True)
    with torch.enable_grad():
        for x in batches:
            found = chain.run(x, len(weights) - 1)
            noise = torch.randn(found.shape, generator=generator).to(found)
            gradients = torch.autograd.grad(found, weights, noise)
            squares += torch.stack([gradient.double().square().mean().cpu() for gradient in gradients])
    for weight, was in zip(weights, learned, strict=True):
        weight.requires_grad_(was)
    sizes = torch.stack([weight.detach().double().square().mean().cpu() for weight in weights])
    return (squares / len(batches) / sizes).sqrt()
