"""The common part of Fast and Faster R-CNN: detector, training and test."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.config.protocols import Detection as Options
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.data.targets import Boxes, read_target
from ssltransfer.logs import logger
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.protocols.average_precision import mean_ap
from ssltransfer.protocols.base import (
    EvalContext,
    EvalResult,
    check_same_classes,
    curve_figure,
    evenly_spaced,
    percent,
    percent_or_none,
)
from ssltransfer.protocols.detection.ap import curves
from ssltransfer.protocols.detection.backbones import DetectorBackbone, calibrate_bn
from ssltransfer.protocols.detection.boxes import Detections, RoiSampler, decode, detections, roi_loss
from ssltransfer.protocols.detection.drawings import draw, precision_lines
from ssltransfer.protocols.detection.transforms import MultiScaleTransform, objects_of, preprocess_image
from ssltransfer.protocols.harness import SeedResult, predict, train_and_test
from ssltransfer.training.curve import TrainResult
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import Task

ROIS_PER_PASS = 256  # of the box head in a test
CALIBRATION_IMAGES = 32  # training images for the statistics of new batch norms


def with_boxes(context: EvalContext) -> tuple[EvalContext, list[Boxes]]:
    """The context with the training images that have an object that is not difficult, and boxes of each test image.

    Raises:
        ArtifactError: a set has no boxes or only difficult ones, or the sets have different classes.
    """
    spec = context.spec
    check_same_classes(context)
    for index, name in ((context.train, spec.train), (context.test, spec.test)):
        if index.targets is None or index.targets.kind != "boxes":
            raise ArtifactError(f"{name}: was indexed without boxes; set `targets: boxes` of this dataset.")
    train = [sample for sample in range(len(context.train)) if len(objects_of(context.train, sample).classes)]
    targets = (read_target(context.test, sample) for sample in range(len(context.test)))
    truth = [boxes for boxes in targets if isinstance(boxes, Boxes)]
    for name, empty in ((spec.train, not train), (spec.test, all(boxes.difficult.all() for boxes in truth))):
        if empty:
            raise ArtifactError(f"{name}: no image has a non-difficult box; name another dataset.")
    return replace(context, train=context.train.subset(np.array(train))), truth


class Detector(Task):
    """A backbone, a linear classifier and a linear box regression for each class.

    The linear layers start at N(0, 0.01) and N(0, 0.001), biases at 0 (fast-rcnn's train.prototxt). Batch norms are
    frozen. Each image is processed alone and in its own size, in training and test. Its loss is the mean over its own
    RoIs, so that the other images of a batch and micro-batches do not matter.
    """

    multiple: ClassVar[int] = 1  # the sides of input images are padded to multiples of this

    def __init__(self, model: PretrainedModel, body: DetectorBackbone, options: Options, classes: int, seed: int):
        super().__init__()
        self.body, self.normalization, self.options, self.classes = body, model.normalization, options, classes
        body.freeze(options.freeze_at)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "detector"))
            self.scores, self.boxes = nn.Linear(body.dims, classes + 1), nn.Linear(body.dims, 4 * classes)
            for layer, deviation in ((self.scores, 0.01), (self.boxes, 0.001)):
                nn.init.normal_(layer.weight, std=deviation)
                nn.init.zeros_(layer.bias)
        self.roi_sampler = RoiSampler(options.roi_batch_size_per_image, options.fg_fraction, options.bg_iou_range)
        self.chance_loss = math.log(classes + 1)

    def inputs(self, image: Tensor) -> Tensor:
        """uint8 (1, 3, h, w) -> float (1, 3, H, W)."""
        return preprocess_image(image, self.normalization, self.multiple)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """The means of `losses` over the images."""
        seeds = rng.host.bits("regions", 1)[:, 0].tolist()
        losses = []
        for row, ((height, width), seed) in enumerate(zip(batch.sizes.tolist(), seeds, strict=True)):
            targets = {name: part[row] for name, part in batch.targets.items()}
            losses.append(self.losses(batch.images[row : row + 1, :, :height, :width], targets, seed))
        return {name: torch.stack([one[name] for one in losses]).mean() for name in losses[0]}

    @abstractmethod
    def losses(self, image: Tensor, targets: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        """Losses of a training image uint8 (1, 3, h, w), their sum `loss`, and other columns of the curve; all scalars.

        The targets are padded with rows of class or label `NO_OBJECT`. Random numbers on the device depend on the seed.
        """

    def box_head(self, maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
        """RoIs (N, 4) of the image of maps (1, D, h, w) -> logits (N, C + 1), deltas (N, C, 4)."""
        x = self.body.roi_features(maps, rois)
        return self.scores(x), self.boxes(x).unflatten(1, (self.classes, 4))

    def roi_losses(self, maps: Tensor, rois: Tensor, labels: Tensor, matched: Tensor) -> dict[str, Tensor]:
        """`loss_class` and `loss_box` of an image's RoIs, and the `accuracy` of their classes."""
        logits, deltas = self.box_head(maps, rois)
        class_loss, box_loss = roi_loss(logits, deltas, rois, labels, matched)
        accuracy = (logits.argmax(1) == labels).sum() / max(1, len(labels))
        return {"loss_class": class_loss, "loss_box": box_loss, "accuracy": accuracy}

    def predict_boxes(self, maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
        """RoIs (N, 4) of one image -> probabilities float32 (N, C + 1) and boxes float32 (N, C, 4)."""
        probabilities, boxes = [], []
        for part in rois.split(ROIS_PER_PASS):
            logits, deltas = self.box_head(maps, part)
            probabilities.append(logits.float().softmax(1))
            boxes.append(decode(deltas.float(), part[:, None]))
        return torch.cat(probabilities), torch.cat(boxes)

    @abstractmethod
    def predict(self, sample: int, views: Sequence[Tensor], width: int, height: int) -> tuple[Tensor, Tensor]:
        """Probabilities (N, C + 1) and boxes (N, C, 4), in pixels of the original image, for a test image.

        `sample` is its position in the index, `views` are the image at one or several sizes, uint8 (1, 3, h, w), and
        `width` and `height` are those of the original.
        """

    def detect(self, context: EvalContext, scales: Sequence[tuple[int, int]]) -> list[Detections]:
        """Detections in each test image, one at a time, from views of these (short side, longest side)."""

        def detect(batch: Batch) -> Detections:
            views = [batch.images, *(batch.targets[f"scale-{place}"] for place in range(1, len(scales)))]
            sample = int(batch.ids[0])
            width, height = context.test.sizes[sample].tolist()
            return detections(*self.predict(sample, views, width, height), (height, width), self.options)

        return predict(context, self, detect, MultiScaleTransform(scales), 1)

    def details(self) -> dict[str, Any]:
        """Details of the trained detector, for the report."""
        return {}

    def examples(self, train: Index, devices: Devices) -> Iterator[Tensor]:
        """Some training images at the median scale, preprocessed, float (1, 3, H, W)."""
        scales = sorted(self.options.min_size)
        transform = MultiScaleTransform([(scales[len(scales) // 2], self.options.max_size)])
        keys = sequential_keys(evenly_spaced(len(train), CALIBRATION_IMAGES), 1)
        for batch in load_batches(train, transform, keys, seed=0):
            yield self.inputs(batch.images.to(devices.device))


def train_and_detect(
    context: EvalContext,
    truth: list[Boxes],
    build: Callable[[PretrainedModel, int], Detector],
    tests: dict[str, Sequence[tuple[int, int]]],
    details: dict[str, Any],
) -> EvalResult:
    """Train a detector for each seed and test it.

    `map`: mean over classes of the 11-point average precision at IoU 0.5, classes without objects ignored; `map_area`:
    the same by area; `map75`: by 11 points at IoU 0.75. Chance is 0.

    Args:
        context: of `with_boxes`.
        truth: boxes of each test image.
        build: model and seed -> detector.
        tests: suffix of the metrics' names -> (short side, longest side) of each view of a test image.
        details: further details.
    """
    names = context.test.classes

    def build_task(seed: int) -> Detector:
        task = build(read_model(context.model), seed).to(context.devices.device)
        calibrated = calibrate_bn(task.body, task.examples(context.train, context.devices))
        if calibrated:
            logger.info(f"seed {seed}: statistics of {calibrated} batch norms estimated on training images")
        context.devices.broadcast(task)
        return task

    def test(task: Detector, trained: TrainResult, seed: int) -> SeedResult:
        metrics: dict[str, float] = {}
        first: dict[str, Any] = {}
        for suffix, scales in tests.items():
            detected = task.detect(context, scales)
            at50, at75 = (curves(detected, truth, len(names), overlap=iou) for iou in (0.5, 0.75))
            aps = {
                "map": [curve.eleven_points() if curve else None for curve in at50],
                "map_area": [curve.area() if curve else None for curve in at50],
                "map75": [curve.eleven_points() if curve else None for curve in at75],
            }
            metrics |= {f"{name}{suffix}": percent(mean_ap(each)) for name, each in aps.items()}
            first = first or {
                "classes": names,
                "per_class": percent_or_none(names, aps["map"]),
                "per_class_75": percent_or_none(names, aps["map75"]),
                "classes_without_objects": [name for name, curve in zip(names, at50, strict=True) if curve is None],
                "num_train_images_with_objects": len(context.train),
                "detections": sum(len(one.scores) for one in detected),
                "drawn": draw(context.test, detected, truth) if not context.devices.rank else [],
                "lines": [
                    *precision_lines(names, at50, truth),
                    curve_figure(trained.curve, "loss", f"loss (chance {task.chance_loss:.2f})", "loss"),
                ],
            }
        return SeedResult(metrics, 0.0, details | task.details() | first)

    return train_and_test(context, build_task, test, val=False)
