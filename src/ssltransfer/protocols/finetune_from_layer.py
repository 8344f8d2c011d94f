"""The network frozen up to a layer, all behind it trained afresh (Noroozi & Favaro 2016, table 2; protocols 4.4)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.protocols import FinetuneFromLayer as Options
from ssltransfer.data.device_ops import random_crop, random_hflip
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.data.transforms import ResizeCenterCrop, Transform
from ssltransfer.models.backbone import initialize_last
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.protocols.base import Classes, EvalContext, EvalResult, classes_of, learning
from ssltransfer.protocols.classification_scores import accuracy_of, per_class_metrics
from ssltransfer.protocols.crops import map_crops
from ssltransfer.protocols.layers import layers_to_measure
from ssltransfer.training.fit import fit
from ssltransfer.training.task import Task, accuracy


def evaluate(context: EvalContext) -> EvalResult:
    """Accuracy with each layer as the last frozen one, and of the layer that is best in the mean over seeds.

    Each layer is a training of its own. Images as for linear classifiers: short side 256 and its central square, a
    random 227 crop, mirrored half the time; test: the mean of the softmax over ten crops.

    Raises:
        LayerError: the model has no such layer.
    """
    options = context.spec.protocol
    assert isinstance(options, Options)
    classes = classes_of(context.train, context.test, (context.spec.train, context.spec.test))
    model = read_model(context.model, context.devices.device)
    layers = layers_to_measure(model.backbone, options.layers, context.model)
    values: dict[str, list[float]] = {layer: [] for layer in layers}
    first: dict[str, np.ndarray] = {}
    lines: list[dict[str, Any]] = []
    measured: dict[str, Any] = {}
    for seed in context.spec.seeds:
        for layer in layers:
            task = PartialFinetuneTask(model, layer, options, classes, seed)
            learning_ones = sum(p.numel() for p in task.parameters() if p.requires_grad)
            print(f"seed {seed}: frozen up to {layer}, {learning_ones} parameters learn", flush=True)
            folder = context.folder / f"seed-{seed}-{layer}"
            folder.mkdir(exist_ok=True)
            fitted = fit(
                task,
                context.train,
                options.schedule,
                seed=seed,
                folder=folder,
                devices=context.devices,
                val=context.test,
            )
            predicted = task.predict(context)
            values[layer].append(accuracy_of(classes, predicted))
            print(f"test: {layer} {values[layer][-1]:.2f} %", flush=True)
            if layer not in first:
                first[layer], measured = predicted, fitted.measured
                lines.append(learning(fitted.curve, "loss") | {"title": f"loss, frozen up to {layer}"})
    best = max(layers, key=lambda layer: sum(values[layer]))
    details = {
        "best_layer": best,
        "layers": list(layers),
        "lines": lines,
        "chance_loss": round(math.log(len(classes.names)), 6),
        **per_class_metrics(classes, first[best]),
    }
    return EvalResult({"best": values[best], **values}, classes.chance, details, measured)


class PartialFinetuneTask(Task):
    """A frozen lower part, and the rest of the same architecture from nothing with a classifier.

    A network without fully-connected layers (ResNet) is classified from its pooled features.

    Args:
        model: on its device, in evaluation mode; neither trained nor in the checkpoint.
        layer: the last frozen one.
        options: of the protocol.
        classes: labels.
        seed: of the fresh weights.
    """

    def __init__(self, model: PretrainedModel, layer: str, options: Options, classes: Classes, seed: int):
        super().__init__()
        self.model, self.layer = model, layer
        self.crops = options.crops
        # By layer, so that a training does not hang on which others there are.
        seed = seed_of(seed, "retrained", layer)
        self.backbone = build_backbone(model.backbone.options, include_top=True, seed=seed, dropout=options.dropout)
        self.later = self.backbone.layers[self.backbone.layers.index(layer) + 1 :]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            last = nn.Linear(math.prod(self.backbone.shapes()[self.backbone.layers[-1]]), len(classes.names))
            initialize_last(last)
        before = nn.Dropout(options.dropout) if self.backbone.options.top_layers else nn.Identity()
        self.head = nn.Sequential(before, nn.Flatten(), last)
        for parameter in self._never_used():
            parameter.requires_grad_(False)
        self.register_buffer("labels", torch.from_numpy(classes.train), persistent=False)
        self.register_buffer("val_labels", torch.from_numpy(classes.test), persistent=False)
        self.chance_loss = math.log(len(classes.names))

    def _never_used(self) -> list[nn.Parameter]:
        """Parameters of the fresh backbone up to the frozen layer: those that no gradient reaches."""
        self.eval()
        x = torch.zeros(1, *self.backbone.shapes()[self.layer])
        self._rest(x).sum().backward()
        unused = [parameter for parameter in self.parameters() if parameter.grad is None]
        self.zero_grad(set_to_none=True)
        return unused

    @property
    def transform(self) -> Transform:
        """The square from which the device crops."""
        backbone = self.backbone.options
        return ResizeCenterCrop(backbone.short_side, backbone.short_side)

    @property
    def val_transform(self) -> Transform:
        """The center crop."""
        return self.model.view

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy of the labels."""
        images = batch.images
        if self.training:
            images = random_hflip(random_crop(images, rng, self.backbone.options.img_size), rng)
        labels: Tensor = self.labels if self.training else self.val_labels  # type: ignore[assignment]
        target, logits = labels[batch.ids], self.logits(images)
        return {"loss": F.cross_entropy(logits, target), "accuracy": accuracy(logits, target)}

    def logits(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> float (B, K)."""
        with torch.no_grad():
            frozen = self.model.layers_of(images, [self.layer])[self.layer]
        # A copy, since the next step may work in place on what inference mode or the frozen backbone still hold.
        return self._rest(frozen.clone())

    def _rest(self, x: Tensor) -> Tensor:
        for layer in self.later:
            x = self.backbone.forward_layer(layer, x)
        found: Tensor = self.head(x)
        return found

    @torch.inference_mode()
    def predict(self, context: EvalContext) -> np.ndarray:
        """Class named for each test image."""
        self.eval()

        def named(crops: list[Tensor]) -> np.ndarray:
            with context.devices.autocast():
                shares = [self.logits(crop).float().softmax(1) for crop in crops]
            found: np.ndarray = torch.stack(shares).mean(0).argmax(1).cpu().numpy()
            return found

        return np.concatenate(map_crops(context, self.backbone.options, self.crops, named))
