"""Semantic segmentation by fine-tuning FCN-32s on any backbone (Long et al. 2015, voc-fcn-alexnet; protocols 4.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from random import Random
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.config.protocols import Segmentation as Options
from ssltransfer.data.drawing import data_uri, side_by_side
from ssltransfer.data.formats.voc import palette
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.data.targets import VOID, read_target
from ssltransfer.data.transforms import Transform
from ssltransfer.logs import logger
from ssltransfer.models.build import with_top
from ssltransfer.models.fcn import Fcn
from ssltransfer.models.normalize import Normalize, normalize
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.protocols.base import (
    PROTOCOLS,
    EvalContext,
    EvalResult,
    check_same_classes,
    curve_figure,
    evenly_spaced,
    percent,
    percent_or_none,
)
from ssltransfer.protocols.confusion import all_background, confusion, intersection_over_union, mean_iou, shares
from ssltransfer.protocols.finetune import prepare_for_finetuning
from ssltransfer.protocols.harness import SeedResult, predict, train_and_test
from ssltransfer.training.curve import TrainResult
from ssltransfer.training.progress import Progress
from ssltransfer.training.task import Task

BACKGROUND = "background"
DRAWN = 6  # test images
DRAWN_HEIGHT = 120  # pixels, and at most twice as wide: a drawing stays below 40 kB


@PROTOCOLS.register(Options)
def evaluate(context: EvalContext) -> EvalResult:
    """Mean intersection over union of the classes and the background, from one confusion matrix of all test images.

    Classes that occur neither in the truth nor in the prediction are ignored in the mean. Test images keep their size
    and are processed one at a time.

    Raises:
        ArtifactError: a set has no masks or a single class in them, or the sets have different classes.
        LayerError: the network cannot be made fully convolutional, or cannot be rescaled.
    """
    options, spec = context.options(Options), context.spec
    for index, name in ((context.train, spec.train), (context.test, spec.test)):
        if index.targets is None or index.targets.kind != "masks":
            raise ArtifactError(f"{name}: has no masks; name a dataset of format voc or sbd with masks.")
    check_same_classes(context)
    names = [BACKGROUND, *context.test.classes]
    frequencies = class_frequencies(context.train, spec.train, names)
    class_frequencies(context.test, spec.test, names)
    unseen = [name for name, frequency in zip(names, frequencies, strict=True) if not frequency]
    if unseen:
        logger.info(f"{spec.train}: no pixel of {', '.join(unseen)}; a class without pixels cannot be learned")

    def build(seed: int) -> SegmentationTask:
        model = with_layers(read_model(context.model), seed)
        prepare_for_finetuning(model, options, context.train, context.devices, seed_of(seed, "prepare"))
        return SegmentationTask(model, options, frequencies)

    def test(task: SegmentationTask, trained: TrainResult, seed: int) -> SeedResult:
        matrix, drawn = task.evaluate(context)
        iou = [None if np.isnan(one) else float(one) for one in intersection_over_union(matrix)]
        details = {
            "classes": names,
            "per_class": percent_or_none(names, iou),
            "classes_ignored_in_mean": [name for name, one in zip(names, iou, strict=True) if one is None],
            "confusion": matrix.tolist(),
            "unseen_classes": unseen,
            "drawn": drawn,
            "chance_loss": round(task.chance_loss, 6),
            "lines": [curve_figure(trained.curve, "loss")],
        }
        metrics = {name: percent(share) for name, share in shares(matrix).items()}
        return SeedResult(metrics, percent(mean_iou(all_background(matrix))), details)

    return train_and_test(context, build, test)


@dataclass(frozen=True)
class WithMask(Transform):
    """An image and its mask, unchanged."""

    padding: ClassVar[Mapping[str, float]] = {"mask": VOID}

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """uint8 (3, H, W) -> the same and `mask`, uint8 (H, W)."""
        return {"image": image, "mask": mask_of(index, sample)}


def mask_of(index: Index, sample: int) -> Tensor:
    """uint8 (H, W), 0 background, 1.. the classes, 255 void.

    Raises:
        ArtifactError: it can no longer be read.
    """
    mask = read_target(index, sample)
    assert isinstance(mask, np.ndarray)
    return torch.from_numpy(mask.copy())


class SegmentationTask(Task):
    """FCN-32s of a model, with softmax cross-entropy over the pixels that are not void.

    Every image is processed alone and in its own size, and its loss is the mean over its pixels, so the result does not
    depend on batches or micro-batches. Therefore batch norms keep the model's statistics; their scales and shifts are
    trained. The layers of the model, which has fully-connected ones if its backbone can have them, are moved into the
    task. `frequencies`, float64 (C,), is the mean fraction of each class in a training image.
    """

    def __init__(self, model: PretrainedModel, options: Options, frequencies: np.ndarray):
        super().__init__()
        self.normalization: Normalize = model.normalization
        self.options, self.classes = options, len(frequencies)
        self.network = Fcn(model.backbone, len(frequencies), padding=options.padding, dropout=options.dropout)
        self.requires_grad_(True)
        self.network.backbone.requires_grad_(options.trainable == "all")
        self.network.head.requires_grad_(options.trainable != "score")
        present = frequencies[frequencies > 0]
        self.chance_loss = float(-(present * np.log(present)).sum())

    @property
    def transform(self) -> WithMask:
        """Images and masks, unchanged."""
        return WithMask()

    def train(self, mode: bool = True) -> SegmentationTask:
        """Batch norms stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Mean over the images of the mean over their pixels."""
        losses = []
        for row, (height, width) in enumerate(batch.sizes.tolist()):  # without padding
            logits = self.network(normalize(batch.images[row : row + 1, :, :height, :width], self.normalization))
            mask = batch.targets["mask"][row : row + 1, :height, :width]
            losses.append(F.cross_entropy(logits, mask.long(), ignore_index=VOID))
        return {"loss": torch.stack(losses).mean()}

    def evaluate(self, context: EvalContext) -> tuple[np.ndarray, list[dict[str, str]]]:
        """Confusion matrix of all test images, int64 (C, C), and drawings of some of them."""
        test = context.test
        drawn = set(evenly_spaced(len(test), DRAWN))
        total = np.zeros((self.classes, self.classes), np.int64)

        def count(batch: Batch) -> dict[str, str] | None:
            logits = self.network(normalize(batch.images, self.normalization))
            predicted, truth = logits[0].argmax(0).byte().cpu().numpy(), batch.targets["mask"][0].cpu().numpy()
            np.add(total, confusion(truth, predicted, self.classes), out=total)
            sample = int(batch.ids)
            if sample not in drawn:
                return None
            image = batch.images[0].permute(1, 2, 0).cpu().numpy()
            return _drawing(test.paths[sample], image, truth, predicted, test.classes)

        drawings = predict(context, self, count, self.transform, 1)
        return np.sum(context.devices.all_gather(total), axis=0), [one for one in drawings if one]


def colored(mask: np.ndarray) -> np.ndarray:
    """uint8 (H, W) of class numbers -> (H, W, 3): VOC's colors, void white."""
    colors = palette()
    colors[VOID] = 255
    return colors[mask]


def _drawing(
    path: str, image: np.ndarray, truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str]
) -> dict[str, str]:
    """Image | truth | prediction as {title, uri}."""
    named = [", ".join(classes[c - 1] for c in np.unique(mask) if 0 < c < VOID) for mask in (truth, predicted)]
    title = f"{PurePosixPath(path).stem}: {named[0] or 'nothing'}; found: {named[1] or 'nothing'}"
    height = min(DRAWN_HEIGHT, 2 * DRAWN_HEIGHT * image.shape[0] // image.shape[1])
    panels = side_by_side([image, colored(truth), colored(predicted)], max(1, height))
    return {"title": title, "uri": data_uri(panels, "JPEG")}


def with_layers(model: PretrainedModel, seed: int) -> PretrainedModel:
    """The model, with new fully-connected layers if its backbone can have them and the model has none.

    New layers have Kaiming's initialization and depend on the seed only.
    """
    options = model.backbone.options
    if model.backbone.layers == options.layers or not options.top_layers:
        return model
    return replace(model, backbone=with_top(model.backbone, seed=seed_of(seed, "fc6-7")))


def class_frequencies(index: Index, name: str, classes: list[str]) -> np.ndarray:
    """Mean over the images of the fraction of each class in the pixels that are not void, float64 (C,).

    Raises:
        ArtifactError: the data set of this name has a single class.
    """
    total = np.zeros(len(classes))
    progress = Progress("masks", 0, len(index), 1)
    for sample in range(len(index)):
        counts = np.bincount(mask_of(index, sample).numpy().ravel(), minlength=VOID + 1)[: len(classes)]
        total += counts / counts.sum()
        progress.step()
        progress.log("pixels counted")
    progress.close()
    if (total > 0).sum() < 2:
        raise ArtifactError(f"{name}: its masks contain only {classes[int(total.argmax())]}; name another dataset.")
    return total / len(index)
