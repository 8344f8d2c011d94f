"""Linear classifiers on all frozen layers, trained together (Zhang et al. 2016, 2017; protocols 4.4)."""

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.protocols import LinearProbePerLayer as Options
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.models.backbone import initialize_last
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.protocols.base import PROTOCOLS, EvalContext, EvalResult, curve_figure
from ssltransfer.protocols.classification_scores import accuracy_of, per_class_metrics
from ssltransfer.protocols.harness import SeedResult, train_and_test
from ssltransfer.protocols.layers import CropTask, best_layer, layers_to_measure
from ssltransfer.training.curve import TrainResult
from ssltransfer.training.task import accuracy


@PROTOCOLS.register(Options)
def evaluate(context: EvalContext) -> EvalResult:
    """Accuracy of each layer, and of the layer with the best mean over seeds.

    Training images: short side 256, central square, random 227 crop, flipped half the time. Test images: the center
    crop, or ten crops, of which the mean softmax or the mean logits count.

    Raises:
        LayerError: the model has no such layer.
    """
    options = context.options(Options)
    context, classes = context.with_classes()
    model = read_model(context.model, context.devices.device)
    layers = layers_to_measure(model.backbone, options.layers, context.model)
    predictions: list[np.ndarray] = []

    def build(seed: int) -> PerLayerProbes:
        return PerLayerProbes(model, layers, options, len(classes.names), seed)

    def test(task: PerLayerProbes, trained: TrainResult, seed: int) -> SeedResult:
        predictions.append(task.predict(context))
        metrics = {layer: accuracy_of(classes, row) for layer, row in zip(layers, predictions[-1], strict=True)}
        pooled = {layer: list(shape) for layer, shape in task.pooled.items()}
        names = [f"{name}_{layer}" for layer in layers for name in ("loss", "accuracy")]
        details = {"pooled": pooled, "lines": [curve_figure(trained.curve, name) for name in names]}
        return SeedResult(metrics, classes.chance(), details)

    result = train_and_test(context, build, test)
    best = best_layer(result.values)
    details = {
        "best_layer": best,
        "layers": list(layers),
        **result.details,
        "chance_loss": round(math.log(len(classes.names)), 6),
        **per_class_metrics(classes, predictions[0][layers.index(best)]),
    }
    return replace(result, values={"best": result.values[best], **result.values}, details=details)


class PerLayerProbes(CropTask):
    """A frozen backbone with one linear classifier per layer; the losses are independent and summed.

    Each map is resized until channels x side^2 is at most `max_features`, then normalized by batch norm without
    parameters, then classified. The classifiers start at N(0, 0.01) [chosen: Caffe's usual filler]. The model is on its
    device and in evaluation mode; it is neither trained nor in the checkpoint.

    Attributes:
        pooled: layer -> input shape of its classifier.
    """

    options: Options

    def __init__(self, model: PretrainedModel, layers: tuple[str, ...], options: Options, num_classes: int, seed: int):
        super().__init__()
        self.model, self.layers, self.options = model, layers, options
        shapes = model.backbone.shapes()
        self.pooled = {layer: probe_shape(shapes[layer], options.max_features) for layer in layers}
        self.probes = nn.ModuleDict(
            {layer: _probe(shape, num_classes, seed, layer) for layer, shape in self.pooled.items()}
        )
        self.chance_loss = len(layers) * math.log(num_classes)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy and accuracy of every layer."""
        target, logits = batch.targets["label"], self.logits(self.augment(batch.images, rng))
        losses = torch.stack([F.cross_entropy(one, target) for one in logits])
        columns = {"loss": losses.sum()}
        for layer, loss, one in zip(self.layers, losses, logits, strict=True):
            columns |= {f"loss_{layer}": loss, f"accuracy_{layer}": accuracy(one, target)}
        return columns

    def logits(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> float (layers, B, K)."""
        with torch.no_grad():
            maps = self.model.layers_of(images, list(self.layers))
            maps = {layer: resized(maps[layer], self.pooled[layer], self.options.resize) for layer in self.layers}
        return torch.stack([self.probes[layer](maps[layer]) for layer in self.layers])


def probe_shape(shape: tuple[int, ...], dims: int) -> tuple[int, ...]:
    """(C, H, W) -> (C, n, n), n the largest with C n^2 <= dims, at least 1 and at most the map's own side."""
    if len(shape) == 1:
        return shape
    side = max(1, min(math.isqrt(dims // shape[0]), *shape[1:]))
    return (shape[0], side, side)


def resized(x: Tensor, shape: tuple[int, ...], how: str) -> Tensor:
    """A map (B, C, H, W) resized to (B, *shape); vectors are unchanged."""
    if tuple(x.shape[1:]) == shape:
        return x
    side = shape[-1]
    if how == "bilinear":
        return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
    return F.adaptive_avg_pool2d(x, side) if how == "area" else F.adaptive_max_pool2d(x, side)


def _probe(shape: tuple[int, ...], classes: int, seed: int, layer: str) -> nn.Module:
    norm = (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(shape[0], affine=False)
    with torch.random.fork_rng(devices=[]):
        # By layer, so that a probe does not depend on the other layers.
        torch.manual_seed(seed_of(seed, "probe", layer))
        linear = nn.Linear(math.prod(shape), classes)
        initialize_last(linear)
    return nn.Sequential(norm, nn.Flatten(), linear)
