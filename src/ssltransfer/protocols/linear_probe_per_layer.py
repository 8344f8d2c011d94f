"""Linear classifiers on every frozen layer, trained side by side (Zhang et al. 2016, 2017; protocols 4.4)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.protocols import LinearProbePerLayer as Options
from ssltransfer.data.device_ops import random_crop, random_hflip
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.data.transforms import ResizeCenterCrop, Transform
from ssltransfer.models.backbone import initialize_last
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.protocols.base import PROTOCOLS, EvalContext, EvalResult
from ssltransfer.protocols.classification_scores import accuracy_of, per_class_metrics
from ssltransfer.protocols.crops import mean_softmax, predict_crops
from ssltransfer.protocols.harness import SeedResult, train_and_test
from ssltransfer.protocols.layers import best_layer, layers_to_measure
from ssltransfer.training.curve import TrainResult
from ssltransfer.training.task import Task, accuracy


@PROTOCOLS.register(Options)
def evaluate(context: EvalContext) -> EvalResult:
    """Accuracy of each layer, and of the layer with the best mean over seeds.

    Training images: short side 256, central square, random 227 crop, flipped half the time. Test images: the center
    crop, or the mean softmax of ten crops.

    Raises:
        LayerError: the model has no such layer.
    """
    options = context.options(Options)
    context, classes = context.with_classes()
    model = read_model(context.model, context.devices.device)
    layers = layers_to_measure(model.backbone, options.layers, context.model)
    tasks: list[PerLayerProbes] = []
    predictions: list[dict[str, np.ndarray]] = []

    def build(seed: int) -> PerLayerProbes:
        return PerLayerProbes(model, layers, options, len(classes.names), seed)

    def test(task: PerLayerProbes, trained: TrainResult, seed: int) -> SeedResult:
        tasks.append(task)
        predictions.append(task.predict(context))
        metrics = {layer: accuracy_of(classes, predictions[-1][layer]) for layer in layers}
        return SeedResult(metrics, classes.chance, {"curves": _curves(trained, layers)})

    result = train_and_test(context, build, test)
    best = best_layer(result.values)
    details = {
        "best_layer": best,
        "layers": list(layers),
        "pooled": {layer: list(shape) for layer, shape in tasks[0].pooled.items()},
        **result.details,
        "chance_loss": round(math.log(len(classes.names)), 6),
        **per_class_metrics(classes, predictions[0][best]),
    }
    return replace(result, values={"best": result.values[best], **result.values}, details=details)


class PerLayerProbes(Task):
    """A frozen backbone and one linear classifier a layer; the losses are independent and summed.

    Each map is resized until channels x side^2 is at most `max_features`, then normalized by batch statistics without
    parameters, then classified. The classifiers start at N(0, 0.01) [chosen: Caffe's usual filler].

    Args:
        model: on its device, in evaluation mode; neither trained nor in the checkpoint.
        layers: which.
        options: of the protocol.
        num_classes: K.
        seed: of the classifiers' weights.

    Attributes:
        pooled: layer -> shape of what is classified.
    """

    def __init__(self, model: PretrainedModel, layers: tuple[str, ...], options: Options, num_classes: int, seed: int):
        super().__init__()
        self.model, self.layers, self.options = model, layers, options
        shapes = model.backbone.shapes()
        self.pooled = {layer: probe_shape(shapes[layer], options.max_features) for layer in layers}
        self.probes = nn.ModuleDict(
            {layer: _probe(shape, num_classes, seed, layer) for layer, shape in self.pooled.items()}
        )
        self.chance_loss = len(layers) * math.log(num_classes)

    @property
    def transform(self) -> Transform:
        """The square from which the device crops."""
        backbone = self.model.backbone.options
        return ResizeCenterCrop(backbone.short_side, backbone.short_side)

    @property
    def val_transform(self) -> Transform:
        """The center crop."""
        return self.model.view

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy and accuracy of every layer."""
        size = self.model.backbone.options.img_size
        images = batch.images
        if self.training:
            images = random_hflip(random_crop(images, rng, size), rng)
        target = batch.targets["label"]
        logits = self.logits(images)
        losses = {layer: F.cross_entropy(value, target) for layer, value in logits.items()}
        found = {"loss": torch.stack(list(losses.values())).sum()}
        for layer in self.layers:
            found |= {f"loss_{layer}": losses[layer], f"accuracy_{layer}": accuracy(logits[layer], target)}
        return found

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 (B, 3, S, S) -> layer -> float (B, K)."""
        with torch.no_grad():
            maps = self.model.layers_of(images, list(self.layers))
            maps = {layer: resized(maps[layer], self.pooled[layer], self.options.resize) for layer in self.layers}
        return {layer: self.probes[layer](maps[layer]) for layer in self.layers}

    def predict(self, context: EvalContext) -> dict[str, np.ndarray]:
        """Layer -> predicted class of each test image."""

        def classify(crops: list[Tensor]) -> dict[str, np.ndarray]:
            outputs = [self.logits(crop) for crop in crops]
            return {layer: mean_softmax([output[layer] for output in outputs]).argmax(1) for layer in self.layers}

        parts = predict_crops(context, self, self.model.backbone.options, self.options.crops, classify)
        return {layer: np.concatenate([part[layer] for part in parts]) for layer in self.layers}


def probe_shape(shape: tuple[int, ...], dims: int) -> tuple[int, ...]:
    """(C, H, W) -> (C, n, n), n the largest with C n^2 <= dims, at least 1 and at most the map's own side."""
    if len(shape) == 1:
        return shape
    side = max(1, min(math.isqrt(dims // shape[0]), *shape[1:]))
    return (shape[0], side, side)


def resized(x: Tensor, shape: tuple[int, ...], how: str) -> Tensor:
    """A map (B, C, H, W) brought to (B, *shape); vectors stay."""
    if tuple(x.shape[1:]) == shape:
        return x
    side = shape[-1]
    if how == "area":
        return F.adaptive_avg_pool2d(x, side)
    if how == "max":
        return F.adaptive_max_pool2d(x, side)
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)


def _probe(shape: tuple[int, ...], classes: int, seed: int, layer: str) -> nn.Module:
    norm = nn.BatchNorm2d(shape[0], affine=False) if len(shape) == 3 else nn.BatchNorm1d(shape[0], affine=False)
    with torch.random.fork_rng(devices=[]):
        # By layer, so that a probe does not hang on which others are trained beside it.
        torch.manual_seed(seed_of(seed, "probe", layer))
        linear = nn.Linear(math.prod(shape), classes)
        initialize_last(linear)
    return nn.Sequential(norm, nn.Flatten(), linear)


def _curves(fitted: TrainResult, layers: tuple[str, ...]) -> dict[str, Any]:
    """Columns of the first seed's learning curve, by layer; validation values at fewer steps."""
    held = [row for row in fitted.curve if "val_loss" in row]

    def column(rows: list[dict[str, float]], name: str) -> list[float]:
        return [round(row[name], 4) for row in rows]

    return {
        "step": [int(row["step"]) for row in fitted.curve],
        "val_step": [int(row["step"]) for row in held],
        "layers": {
            layer: {
                "loss": column(fitted.curve, f"loss_{layer}"),
                "accuracy": column(fitted.curve, f"accuracy_{layer}"),
                "val_loss": column(held, f"val_loss_{layer}"),
                "val_accuracy": column(held, f"val_accuracy_{layer}"),
            }
            for layer in layers
        },
    }
