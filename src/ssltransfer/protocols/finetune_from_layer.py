"""The network frozen up to a layer, all behind it trained afresh (Noroozi & Favaro 2016, table 2; protocols 4.4)."""

from __future__ import annotations

import math

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
from ssltransfer.protocols.base import PROTOCOLS, EvalContext, EvalResult, curve_figure
from ssltransfer.protocols.classification_scores import accuracy_of, per_class_metrics
from ssltransfer.protocols.crops import mean_softmax, predict_crops
from ssltransfer.protocols.harness import SeedResult, train_and_test
from ssltransfer.protocols.layers import best_layer, layers_to_measure
from ssltransfer.training.fit import TrainResult
from ssltransfer.training.task import Task, accuracy


@PROTOCOLS.register(Options)
def evaluate(context: EvalContext) -> EvalResult:
    """Accuracy with each layer as the last frozen one, and of the layer with the best mean over seeds.

    Each layer is a separate training. Images as for `linear-probe-per-layer`.

    Raises:
        LayerError: the model has no such layer.
    """
    options = context.options(Options)
    context, classes = context.with_classes()
    model = read_model(context.model, context.devices.device)
    layers = layers_to_measure(model.backbone, options.layers, context.model)

    def of_layer(layer: str) -> EvalResult:
        def build(seed: int) -> PartialFinetuneTask:
            return PartialFinetuneTask(model, layer, options, len(classes.names), seed)

        def test(task: PartialFinetuneTask, trained: TrainResult, seed: int) -> SeedResult:
            predicted = task.predict(context)
            figure = curve_figure(trained.curve, "loss", f"loss, frozen up to {layer}")
            details = {"figure": figure, **per_class_metrics(classes, predicted)}
            return SeedResult({"accuracy": accuracy_of(classes, predicted)}, classes.chance, details)

        return train_and_test(context, build, test, suffix=f"-{layer}")

    results = {layer: of_layer(layer) for layer in layers}
    values = {layer: result.values["accuracy"] for layer, result in results.items()}
    figures = [result.details.pop("figure") for result in results.values()]
    best = best_layer(values)
    details = {
        "best_layer": best,
        "layers": list(layers),
        "lines": figures,
        "chance_loss": round(math.log(len(classes.names)), 6),
        **results[best].details,
    }
    return EvalResult({"best": values[best], **values}, classes.chance, details, results[best].measured)


class PartialFinetuneTask(Task):
    """A frozen lower part, and the rest of the same architecture from nothing with a classifier.

    A network without fully-connected layers (ResNet) is classified from its pooled features.

    Args:
        model: on its device, in evaluation mode; neither trained nor in the checkpoint.
        layer: the last frozen one.
        options: of the protocol.
        num_classes: K.
        seed: of the fresh weights.
    """

    def __init__(self, model: PretrainedModel, layer: str, options: Options, num_classes: int, seed: int):
        super().__init__()
        self.model, self.layer = model, layer
        self.crops = options.crops
        # By layer, so that a training does not hang on which others there are.
        seed = seed_of(seed, "retrained", layer)
        self.backbone = build_backbone(model.backbone.options, include_top=True, seed=seed, dropout=options.dropout)
        self.later = self.backbone.layers[self.backbone.layers.index(layer) + 1 :]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            last = nn.Linear(math.prod(self.backbone.shapes()[self.backbone.layers[-1]]), num_classes)
            initialize_last(last)
        before = nn.Dropout(options.dropout) if self.backbone.options.top_layers else nn.Identity()
        self.head = nn.Sequential(before, nn.Flatten(), last)
        for parameter in self._never_used():
            parameter.requires_grad_(False)
        self.chance_loss = math.log(num_classes)

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
        target, logits = batch.targets["label"], self.logits(images)
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

    def predict(self, context: EvalContext) -> np.ndarray:
        """Predicted class of each test image."""

        def classify(crops: list[Tensor]) -> np.ndarray:
            return mean_softmax([self.logits(crop) for crop in crops]).argmax(1)

        return np.concatenate(predict_crops(context, self, self.backbone.options, self.crops, classify))
