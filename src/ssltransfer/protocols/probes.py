"""Classifiers on one frozen layer by gradient descent: linear, or with a hidden layer.

Abbasi Koohpayegani et al. 2020 (protocols 4.6): l2-normalized and standardized features, random resized crops and
flips. Kolesnikov et al. 2019 (protocols 4.5): plain features, random crops. Doersch & Zisserman 2017 (protocols 4.7):
block3 pooled to 3x3, random crops and color distortion.
"""

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.index import Index
from ssltransfer.config.protocols import FrozenBlock3, Linear, LinearProbe, MlpProbe
from ssltransfer.config.protocols import ProbeOptions as Options
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.colors import color_jitter
from ssltransfer.data.device_ops import random_crop, random_hflip
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import RandomResizedCrop, ResizeCenterCrop, Transform
from ssltransfer.models.backbone import LayerError, initialize_last
from ssltransfer.models.build import rebuild
from ssltransfer.models.layer_mix import LayerMix, units_of
from ssltransfer.models.pooling import pooled, pooled_shape
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.protocols.base import PROTOCOLS, EvalContext, EvalResult, curve_figure
from ssltransfer.protocols.classification_scores import accuracy_of, per_class_metrics, top5_of
from ssltransfer.protocols.harness import SeedResult, distributed_map, predict, train_and_test
from ssltransfer.protocols.subsets import labeled_subsets
from ssltransfer.training.curve import TrainResult
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import Task, accuracy

BATCH = 64
VARIANCE_FLOOR = 1e-5  # added to each dimension's variance, as CompRess's code does


@PROTOCOLS.register(Linear, LinearProbe, MlpProbe, FrozenBlock3)
def evaluate(context: EvalContext) -> EvalResult:
    """Accuracy and top-5 accuracy on center crops, for each seed.

    Raises:
        LayerError: the model has no such layer, or it cannot be pooled.
    """
    options = context.options(Options)
    context, classes = context.with_classes()
    model = read_model(context.model, context.devices.device)
    if options.output_stride:
        model = replace(model, backbone=rebuild(model.backbone, output_stride=options.output_stride))
    train = dict.fromkeys(context.spec.seeds, context.train)
    if options.label_subset:
        subsets = labeled_subsets(context.train.paths, classes.train, options.label_subset, context.spec.seeds)
        train = {seed: context.train.subset(chosen) for seed, chosen in zip(train, subsets, strict=True)}

    def build(seed: int) -> ProbeTask:
        task = ProbeTask(model, options, len(classes.names), seed, str(context.model))
        if options.standardize:
            task.standardize(train[seed], context.devices)
        return task

    def plan(task: ProbeTask, seed: int) -> tuple[Index, Schedule]:
        return train[seed], task.schedule.scaled_to_full_set(len(context.train) / len(train[seed]))

    def test(task: ProbeTask, trained: TrainResult, seed: int) -> SeedResult:
        scores = task.scores(context)
        predicted = scores.argmax(1)
        metrics = {"accuracy": accuracy_of(classes, predicted), "top5": top5_of(classes, scores)}
        details = {
            "num_labeled": len(train[seed]),
            "shape": list(task.shape),
            **per_class_metrics(classes, predicted),
            **({"mix": task.mix.rounded} if task.mix is not None else {}),
            "lines": [curve_figure(trained.curve, "loss"), curve_figure(trained.curve, "accuracy")],
        }
        return SeedResult(metrics, classes.chance(5 if options.primary_metric == "top5" else 1), details)

    return train_and_test(context, build, test, plan=plan)


class ProbeTask(Task):
    """A frozen layer and a classifier that starts at N(0, 0.01) [chosen: Caffe's usual filler].

    The model is on its device and in evaluation mode; it is neither trained nor in the checkpoint.

    Attributes:
        shape: of the layer after pooling.
    """

    def __init__(self, model: PretrainedModel, options: Options, num_classes: int, seed: int, where: str):
        super().__init__()
        self.model, self.options = model, options
        self.layer = options.layer or model.backbone.layers[-1]
        model.backbone.require([self.layer], where)
        self.l1_layer_mix: float | None = getattr(options, "l1_layer_mix", None)
        self.mix = None if self.l1_layer_mix is None else LayerMix(model.backbone)
        shape = model.backbone.shapes()[self.layer]
        if options.pool and len(shape) != 3:
            raise LayerError(f"{where}: {self.layer} is a vector and cannot be pooled; remove `pool`.")
        self.shape = pooled_shape(shape, options.pool)
        dims, self.num_classes = math.prod(self.shape), num_classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            last = nn.Linear(options.hidden_dim or dims, num_classes)
            initialize_last(last)
            hidden: list[nn.Module] = []
            if options.hidden_dim:
                hidden = [nn.Linear(dims, options.hidden_dim), nn.ReLU(), nn.Dropout(options.dropout)]
            self.classifier = nn.Sequential(*hidden, last)
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("deviation", torch.ones(dims))
        self.chance_loss = math.log(num_classes)

    @property
    def schedule(self) -> Schedule:
        """The protocol's schedule, with the weight decay of `vtab_l2`: half the gradient of ||W||^2 is W."""
        if not self.options.vtab_l2:
            return self.options.schedule
        penalty = 100 / (math.prod(self.shape) * self.num_classes)
        return self.options.schedule.model_copy(update={"weight_decay": 2 * penalty, "decay_norm_and_bias": False})

    @property
    def transform(self) -> Transform:
        """A random box, or the central square that is cropped on the device."""
        if self.options.augment == "random-resized-crop":
            return RandomResizedCrop(self.view.size)
        return ResizeCenterCrop(self.view.short_side, self.view.short_side)

    @property
    def val_transform(self) -> Transform:
        """The center crop."""
        return self.view

    @property
    def view(self) -> ResizeCenterCrop:
        """The model's center crop, for the whole image or for nine patches."""
        return self.model.patches_view if self.options.patches else self.model.view

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Cross-entropy of the labels."""
        images = batch.images
        if self.training:
            images = random_crop(images, rng, self.view.size)
            images = random_hflip(images, rng) if self.options.hflip else images
            images = color_jitter(images, rng) if self.options.color_jitter else images
        target = batch.targets["label"]
        logits = self.classifier(self._inputs(images))
        loss = F.cross_entropy(logits, target)
        if self.mix is not None and self.l1_layer_mix is not None and self.training:
            loss = loss + self.l1_layer_mix * self.mix.penalty
        return {"loss": loss, "accuracy": accuracy(logits, target)}

    def features(self, images: Tensor) -> Tensor:
        """uint8 or float (B, 3, S, S), 0 to 255 -> float32 (B, dims), pooled, optionally l2-normalized."""
        if self.mix is not None:
            with torch.no_grad():
                units = units_of(self.model, images)
            x = pooled(self.mix(units).float(), self.options.pool).flatten(1)
        else:
            with torch.no_grad():
                x = self.model.features_of(images, self.layer, self.options.pool, patches=self.options.patches)
        return F.normalize(x) if self.options.l2_normalize else x

    @torch.no_grad()
    def standardize(self, train: Index, devices: Devices) -> None:
        """Set mean and standard deviation from the training images' center crops."""
        dims = math.prod(self.shape)
        total, squares = (torch.zeros(dims, dtype=torch.float64, device=devices.device) for _ in "ab")

        def add(batch: Batch) -> None:
            with devices.autocast():
                x = self.features(batch.images).double()
            total.add_(x.sum(0))
            squares.add_(x.square().sum(0))

        distributed_map(train, self.view, BATCH, add, devices, what="standardize")
        mean = devices.all_reduce_sum(total) / len(train)
        variance = (devices.all_reduce_sum(squares) / len(train) - mean.square()).clamp(min=0)
        self.mean, self.deviation = mean.float(), (variance + VARIANCE_FLOOR).sqrt().float()

    def scores(self, context: EvalContext) -> np.ndarray:
        """Logits of the center crops, float32 (N, C)."""

        def score(batch: Batch) -> np.ndarray:
            logits: np.ndarray = self.classifier(self._inputs(batch.images)).float().cpu().numpy()
            return logits

        return np.concatenate(predict(context, self, score, self.view, BATCH))

    def _inputs(self, images: Tensor) -> Tensor:
        """Input of the classifier, float32 (B, dims)."""
        return (self.features(images) - self.mean) / self.deviation
