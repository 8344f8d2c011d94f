"""VOC07 classification by fine-tuning (Krähenbühl et al. 2016, released voc-classification; protocols 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.protocols import VocClassification as Options
from ssltransfer.data.device_ops import random_hflip
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.data.transforms import ImageTransform, resize
from ssltransfer.models.backbone import BATCH_NORMS, Backbone, LayerError
from ssltransfer.models.build import with_top
from ssltransfer.models.fuse_bn import fuse_conv_bn
from ssltransfer.models.normalize import normalize
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.protocols.average_precision import area, eleven_points, mean_ap, precisions
from ssltransfer.protocols.base import (
    PROTOCOLS,
    EvalContext,
    EvalResult,
    check_same_classes,
    curve_figure,
    percent,
    percent_or_none,
)
from ssltransfer.protocols.finetune import prepare_for_finetuning
from ssltransfer.protocols.harness import SeedResult, predict, train_and_test
from ssltransfer.training.curve import TrainResult
from ssltransfer.training.task import Task

TEST_BATCH = 64
RECALLS = 21  # points of a curve


@PROTOCOLS.register(Options)
def evaluate(context: EvalContext) -> EvalResult:
    """Mean average precision over the classes present in the test images: `map` by area, `map11` by 11 points.

    The scores of a test image are summed over ten random crops, flipped half the time, as in the released code.

    Raises:
        ArtifactError: a set has no multi-label annotation, or the sets have different classes.
        LayerError: the model lacks the fc layers that stay frozen.
    """
    options = context.options(Options)
    train, test_labels = _multi_labels(context)
    names = context.test.classes
    positive, counted = (test_labels > 0).sum(0), (test_labels != 0).sum(0)
    # The mean average precision of random scores: the fraction of positive images of each class.
    chance = percent((positive / np.maximum(counted, 1))[positive > 0].mean())

    def build(seed: int) -> MultiLabelFinetuneTask:
        model = read_model(context.model)
        task = MultiLabelFinetuneTask(model, context.model.as_posix(), options, train, seed)
        prepare_for_finetuning(replace(model, backbone=task.backbone), options, context.train, context.devices, seed)
        return task

    def test(task: MultiLabelFinetuneTask, trained: TrainResult, seed: int) -> SeedResult:
        scores = task.scores(context, seed)
        columns = [(scores[:, c], test_labels[:, c]) for c in range(len(names))]
        aps = {"map": [area(*column) for column in columns], "map11": [eleven_points(*column) for column in columns]}
        metrics = {name: percent(mean_ap(each)) for name, each in aps.items()}
        details = {
            "classes": names,
            "per_class": percent_or_none(names, aps["map"]),
            "per_class_11": percent_or_none(names, aps["map11"]),
            "classes_without_positives": [name for name, ap in zip(names, aps["map"], strict=True) if ap is None],
            "chance_loss": round(task.chance_loss, 6),
            "lines": [
                curve_figure(trained.curve, "loss"),
                _precision_recall(scores, test_labels, names, aps["map"]),
            ],
        }
        return SeedResult(metrics, chance, details)

    return train_and_test(context, build, test)


@dataclass(frozen=True)
class ScaledCrop(ImageTransform):
    """A random square of the original image with sides of `scale` times `size`, resized to `size`.

    As in the released layer the factor is uniform between both scales, limited to what fits in the image, so that
    nothing is padded; the position is uniform. Unlike there, resizing is antialiased [chosen].
    """

    size: int
    scale: tuple[float, float]

    def apply(self, image: Tensor, rng: Random) -> Tensor:
        """(3, H, W) -> (3, size, size)."""
        height, width = image.shape[-2:]
        high = min(self.scale[1], min(height, width) / self.size)
        side = max(1, min(round(self.size * rng.uniform(min(self.scale[0], high), high)), height, width))
        top, left = rng.randint(0, height - side), rng.randint(0, width - side)
        return resize(image[:, top : top + side, left : left + side], self.size, self.size)


class MultiLabelFinetuneTask(Task):
    """A model with a binary classifier for each class.

    Convolutions are copied from the model. `all` and `fc6-8`: fc6, fc7 and fc8 start at N(0, 0.01) with bias 0.1, even
    if the model has trained ones, so that all models start in the same way; `fc8`: the model's fc6 and fc7 are frozen.
    A network without fc layers (ResNet) has fc8 on its pooled features; then fc6-8 means fc8. Frozen batch norms keep
    their statistics. Dropout before trained layers stays on, as in the released code.

    `train` holds the labels of the training images, int8 (N, C): 1 present, 0 difficult, -1 absent.
    """

    def __init__(self, model: PretrainedModel, where: str, options: Options, train: np.ndarray, seed: int):
        super().__init__()
        self.normalization, self.options = model.normalization, options
        self.backbone, new = _backbone(model, where, options, seed)
        before = nn.Dropout(options.dropout) if self.backbone.options.top_layers else nn.Identity()
        fc8 = nn.Linear(self.backbone.shapes()[self.backbone.layers[-1]][0], train.shape[1])
        self.head = nn.Sequential(before, fc8)
        _reset([fc8], seed, "fc8")
        self.backbone.requires_grad_(options.trainable == "all")
        for layer in new:
            layer.requires_grad_(True)
        counted, present = train != 0, train > 0
        p = np.clip(present.sum(0) / np.maximum(counted.sum(0), 1), 1e-12, 1 - 1e-12)
        entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
        self.chance_loss = float(options.loss_weight * (counted.mean(0) * entropy).mean())

    @property
    def transform(self) -> ScaledCrop:
        """Random scale and position."""
        return ScaledCrop(self.backbone.options.img_size, self.options.scale)

    def train(self, mode: bool = True) -> MultiLabelFinetuneTask:
        """Frozen batch norms stay in evaluation mode."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, BATCH_NORMS) and not module.weight.requires_grad:
                module.eval()
        return self

    def logits(self, images: Tensor, rng: SampleRNG) -> Tensor:
        """uint8 (B, 3, S, S) -> float (B, C)."""
        x = normalize(random_hflip(images, rng), self.normalization)
        logits: Tensor = self.head(self.backbone(x)[self.backbone.layers[-1]])
        return logits

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """`loss_weight` times the mean cross-entropy over images and classes; difficult ones count zero.

        With 20 classes and weight 20 this is the released code's sum over classes and mean over images.
        """
        presence = batch.targets["multi_label"]
        logits = self.logits(batch.images, rng).float()
        losses = F.binary_cross_entropy_with_logits(logits, (presence > 0).float(), reduction="none")
        return {"loss": self.options.loss_weight * (losses * (presence != 0)).mean()}

    def scores(self, context: EvalContext, seed: int) -> np.ndarray:
        """float64 (N, C), the sum of each test image's scores over its crops."""
        crops, seed = self.options.crops, seed_of(seed, "test")

        def score(batch: Batch) -> np.ndarray:
            logits: np.ndarray = self.logits(batch.images, batch.rng(seed)).double().cpu().numpy()
            return logits

        parts = predict(context, self, score, self.transform, TEST_BATCH, seed=seed, times=crops)
        return np.concatenate(parts).reshape(crops, len(context.test), -1).sum(0)


def _backbone(model: PretrainedModel, where: str, options: Options, seed: int) -> tuple[Backbone, list[nn.Linear]]:
    """The network, and its new layers fc6 and fc7."""
    fc = model.backbone.options.top_layers
    if not fc:
        return model.backbone, []
    if options.trainable == "fc8":
        missing = [layer for layer in fc if layer not in model.backbone.layers]
        if missing:
            raise LayerError(
                f"{where}: no layer {missing[-1]!r}, which trainable: fc8 keeps frozen (it has "
                f"{', '.join(model.backbone.layers)}); use trainable: fc6-8 or all."
            )
        for module in model.backbone.modules():
            if isinstance(module, nn.Dropout):
                module.p = options.dropout
        return model.backbone, []
    backbone = with_top(model.backbone, seed=seed, dropout=options.dropout)
    fuse_conv_bn(backbone, linear_only=True)
    new = [module for module in backbone.modules() if isinstance(module, nn.Linear)]
    _reset(new, seed, "fc6-7")
    return backbone, new


def _reset(layers: Sequence[nn.Linear], seed: int, purpose: str) -> None:
    """N(0, 0.01), bias 0.1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, purpose))
        for layer in layers:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, 0.1)


def _multi_labels(context: EvalContext) -> tuple[np.ndarray, np.ndarray]:
    train, test = context.train.multi_label, context.test.multi_label
    if train is None or test is None:
        name = context.spec.train if train is None else context.spec.test
        raise ArtifactError(
            f"{name}: does not have several labels per image; name a dataset of format voc, or one with `labels`."
        )
    check_same_classes(context)
    if not (test > 0).any():
        raise ArtifactError(f"{context.spec.test}: no class is present in any image; name another set.")
    return train, test


def _precision_recall(
    scores: np.ndarray, presence: np.ndarray, classes: list[str], aps: list[float | None]
) -> dict[str, Any]:
    """Figure of the mean curve over classes, and of the best and the worst class."""
    every = (precisions(scores[:, c], presence[:, c], RECALLS) for c in range(len(classes)))
    curves = {c: curve for c, curve in enumerate(every) if curve is not None}
    ordered = sorted(curves, key=lambda c: aps[c] or 0.0)
    drawn = {classes[c]: curves[c] for c in (ordered[-1], ordered[0])}
    drawn = {"mean of the classes": np.mean(list(curves.values()), axis=0), **drawn}
    recalls = [percent(recall) for recall in np.linspace(0, 1, RECALLS)]
    series = {name: [recalls, [percent(one) for one in curve]] for name, curve in drawn.items()}
    return {"title": "precision, %", "x": "recall, %", "y": "", "series": series}
