"""Linear classifiers on every frozen layer, trained side by side (Zhang et al. 2016, 2017; protocols 4.4)."""

from __future__ import annotations

import math
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
from ssltransfer.protocols.base import Classes, EvalContext, EvalResult, classes_of
from ssltransfer.protocols.classification_scores import accuracy_of, per_class_metrics
from ssltransfer.protocols.crops import map_crops
from ssltransfer.protocols.layers import layers_to_measure
from ssltransfer.training.curve import TrainResult
from ssltransfer.training.fit import fit
from ssltransfer.training.task import Task, accuracy


def evaluate(context: EvalContext) -> EvalResult:
    """Accuracy of each layer, and of the layer that is best in the mean over seeds.

    Training images: short side 256 and its central square, a random 227 crop, mirrored half the time. Test: the
    center crop, or the mean of the softmax over ten crops.

    Raises:
        LayerError: the model has no such layer.
    """
    options = context.spec.protocol
    assert isinstance(options, Options)
    devices = context.devices
    classes = classes_of(context.train, context.test, (context.spec.train, context.spec.test))
    model = read_model(context.model, devices.device)
    layers = layers_to_measure(model.backbone, options.layers, context.model)
    values: dict[str, list[float]] = {layer: [] for layer in layers}
    first: dict[str, np.ndarray] = {}
    curves: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    task: PerLayerProbes | None = None
    for seed in context.spec.seeds:
        task = PerLayerProbes(model, layers, options, classes, seed)
        print(f"seed {seed}: " + ", ".join(f"{layer} {shape}" for layer, shape in task.pooled.items()), flush=True)
        folder = context.folder / f"seed-{seed}"
        folder.mkdir(exist_ok=True)
        fitted = fit(task, context.train, options.schedule, seed=seed, folder=folder, devices=devices, val=context.test)
        predicted = task.predict(context)
        for layer in layers:
            values[layer].append(accuracy_of(classes, predicted[layer]))
        print("test: " + ", ".join(f"{layer} {values[layer][-1]:.2f} %" for layer in layers), flush=True)
        if not first:
            first, curves, measured = predicted, _curves(fitted, layers), fitted.measured

    assert task is not None
    best = max(layers, key=lambda layer: sum(values[layer]))
    details = {
        "best_layer": best,
        "layers": list(layers),
        "pooled": {layer: list(shape) for layer, shape in task.pooled.items()},
        "curves": curves,
        "chance_loss": round(math.log(len(classes.names)), 6),
        **per_class_metrics(classes, first[best]),
    }
    return EvalResult({"best": values[best], **values}, classes.chance, details, measured)


class PerLayerProbes(Task):
    """A frozen backbone and one linear classifier a layer; the losses are independent and summed.

    Each map is resized until channels x side^2 is at most `max_features`, then normalized by batch statistics without
    parameters, then classified. The classifiers start at N(0, 0.01) [chosen: Caffe's usual filler].

    Args:
        model: on its device, in evaluation mode; neither trained nor in the checkpoint.
        layers: which.
        options: of the protocol.
        classes: labels.
        seed: of the classifiers' weights.

    Attributes:
        pooled: layer -> shape of what is classified.
    """

    def __init__(self, model: PretrainedModel, layers: tuple[str, ...], options: Options, classes: Classes, seed: int):
        super().__init__()
        self.model, self.layers, self.options = model, layers, options
        shapes = model.backbone.shapes()
        self.pooled = {layer: probe_shape(shapes[layer], options.max_features) for layer in layers}
        count = len(classes.names)
        self.probes = nn.ModuleDict({layer: _probe(shape, count, seed, layer) for layer, shape in self.pooled.items()})
        self.register_buffer("labels", torch.from_numpy(classes.train), persistent=False)
        self.register_buffer("val_labels", torch.from_numpy(classes.test), persistent=False)
        self.chance_loss = len(layers) * math.log(count)

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
        labels: Tensor = self.labels if self.training else self.val_labels  # type: ignore[assignment]
        target = labels[batch.ids]
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

    @torch.inference_mode()
    def predict(self, context: EvalContext) -> dict[str, np.ndarray]:
        """Layer -> class named for each test image."""
        self.eval()

        def named(crops: list[Tensor]) -> dict[str, np.ndarray]:
            with context.devices.autocast():
                outputs = [self.logits(crop) for crop in crops]
            means = {
                layer: torch.stack([output[layer].float().softmax(1) for output in outputs]).mean(0)
                for layer in self.layers
            }
            return {layer: mean.argmax(1).cpu().numpy() for layer, mean in means.items()}

        parts = map_crops(context, self.model.backbone.options, self.options.crops, named)
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
