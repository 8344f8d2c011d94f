"""What Fast and Faster R-CNN share: the head, how they are trained and tested, and what is reported of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.protocols.base import EvalContext, EvalResult, evenly_spaced, percent
from ssltransfer.protocols.detection.ap import Curve, curves, mean_of
from ssltransfer.protocols.detection.backbones import DetectorBackbone, calibrate_bn
from ssltransfer.protocols.detection.boxes import Detections, Sampling, decode, detections, region_loss
from ssltransfer.protocols.detection.drawings import draw, precision_lines
from ssltransfer.protocols.detection.transforms import TestView, objects_of, preprocess_image
from ssltransfer.protocols.distributed import distributed_map
from ssltransfer.training.curve import TrainResult
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import fit
from ssltransfer.training.task import Task

REGIONS = 256  # judged in one pass
CALIBRATION_IMAGES = 32  # training images from which fresh norms take their statistics


@dataclass(frozen=True)
class Sets:
    """What a detector learns from and is tested on.

    Attributes:
        train: images with an object that is not difficult: of others nothing is drawn to learn from.
        test: all test images.
        truth: their objects.
    """

    train: Index
    test: Index
    truth: list[Boxes]


def sets_of(context: EvalContext) -> Sets:
    """Both sets with their boxes.

    Raises:
        ArtifactError: a set has no boxes, the two have other classes, or nothing to learn or to find.
    """
    spec = context.spec
    if context.train.classes != context.test.classes:
        raise ArtifactError(f"{spec.test}: its classes are not those of {spec.train}; name two splits of one set.")
    for index, name in ((context.train, spec.train), (context.test, spec.test)):
        if index.targets is None or index.targets.kind != "boxes":
            raise ArtifactError(f"{name}: was indexed without boxes; set `targets: boxes` of this dataset.")
    learnt = [sample for sample in range(len(context.train)) if len(objects_of(context.train, sample).classes)]
    truth = [read_target(context.test, sample) for sample in range(len(context.test))]
    boxes = [one for one in truth if isinstance(one, Boxes)]
    if not learnt:
        raise ArtifactError(f"{spec.train}: no image has a box that is not difficult, there is nothing to learn.")
    if all(one.difficult.all() for one in boxes):
        raise ArtifactError(f"{spec.test}: no image has a box that is not difficult, there is nothing to find.")
    return Sets(context.train.subset(np.array(learnt)), context.test, boxes)


class Detector(Task):
    """A body, and a linear classifier with a linear regression of a box for each class.

    The last two start at N(0, 0.01) and N(0, 0.001), biases at 0 (fast-rcnn's train.prototxt). Batch norms stay as
    they are. The validation loss is not measured: what counts is measured on test images as such.

    A image goes through the network alone and in its own size, in training as in the test, and its loss is that of
    its own regions: neither what stands beside it in a batch nor how a batch is divided has a part in it.

    Args:
        model: where weights come from.
        body: made of it.
        options: of the protocol.
        classes: how many.
        seed: of the fresh layers.
    """

    multiple: ClassVar[int] = 1
    """Sides of prepared images are multiples of this."""

    def __init__(self, model: PretrainedModel, body: DetectorBackbone, options: Options, classes: int, seed: int):
        super().__init__()
        self.body, self.rule, self.choices, self.classes = body, model.normalization, options, classes
        body.freeze(options.freeze_at)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "detector"))
            self.scores, self.boxes = nn.Linear(body.dims, classes + 1), nn.Linear(body.dims, 4 * classes)
            for layer, deviation in ((self.scores, 0.01), (self.boxes, 0.001)):
                nn.init.normal_(layer.weight, std=deviation)
                nn.init.zeros_(layer.bias)
        self.sampling = Sampling(options.roi_batch_size_per_image, options.fg_fraction, options.bg_iou_range)
        self.chance_loss = math.log(classes + 1)

    def inputs(self, image: Tensor) -> Tensor:
        """uint8 (1, 3, h, w) -> float (1, 3, H, W)."""
        return preprocess_image(image, self.rule, self.multiple)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """The mean over the images of what `losses` says of each."""
        seeds = rng.bits("regions", 1)[:, 0].tolist()
        found = []
        for row, ((height, width), seed) in enumerate(zip(batch.targets["sizes"].tolist(), seeds, strict=True)):
            others = {name: part[row] for name, part in batch.targets.items()}
            found.append(self.losses(batch.images[row : row + 1, :, :height, :width], others, seed))
        return {name: torch.stack([one[name] for one in found]).mean() for name in found[0]}

    @abstractmethod
    def losses(self, image: Tensor, others: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        """Losses of a training image and their sum `loss`, and what else the curve shows; all scalars.

        Args:
            image: uint8 (1, 3, h, w).
            others: its own part of what the transform gave, filled up with rows of class or label `NOTHING`.
            seed: of what is drawn for it on the device.
        """

    def box_head(self, maps: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Regions (N, 4) of the image of maps (1, D, h, w) -> logits (N, C + 1), deltas (N, C, 4)."""
        owners = torch.zeros(len(regions), dtype=torch.int64, device=regions.device)
        x = self.body.roi_features(maps, regions, owners)
        return self.scores(x), self.boxes(x).unflatten(1, (self.classes, 4))

    def region_losses(self, maps: Tensor, regions: Tensor, labels: Tensor, shown: Tensor) -> dict[str, Tensor]:
        """`loss_class` and `loss_box` of a image's regions, and the `accuracy` of their class."""
        logits, deltas = self.box_head(maps, regions)
        named, placed = region_loss(logits, deltas, regions, labels, shown)
        right = (logits.argmax(1) == labels).sum() / max(1, len(labels))
        return {"loss_class": named, "loss_box": placed, "accuracy": right}

    def predict_boxes(self, maps: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Regions (N, 4) of one image -> probabilities float32 (N, C + 1) and boxes float32 (N, C, 4)."""
        probabilities, boxes = [], []
        for part in regions.split(REGIONS):
            logits, deltas = self.box_head(maps, part)
            probabilities.append(logits.float().softmax(1))
            boxes.append(decode(deltas.float(), part[:, None]))
        return torch.cat(probabilities), torch.cat(boxes)

    @abstractmethod
    def predict(self, sample: int, views: Sequence[Tensor], width: int, height: int) -> tuple[Tensor, Tensor]:
        """What is said of a test image.

        Args:
            sample: position in the test index.
            views: of it at one or several sizes, uint8 (1, 3, h, w).
            width, height: of the image.

        Returns:
            Probabilities (N, C + 1) and boxes (N, C, 4) in pixels of the image.
        """

    @torch.inference_mode()
    def detect(self, test: Index, scales: Sequence[tuple[int, int]], devices: Devices) -> list[Detections]:
        """Detections in each image, one at a time, so that no other one has a part in them.

        Args:
            test: the images.
            scales: (short side, longest side) of each view.
            devices: where.
        """
        self.eval()
        options = self.choices

        def found(batch: Batch) -> Detections:
            views = [batch.images, *(batch.targets[f"scale-{place}"] for place in range(1, len(scales)))]
            sample = int(batch.ids[0])
            width, height = test.sizes[sample].tolist()
            with devices.autocast(options.schedule.precision):
                probabilities, boxes = self.predict(sample, views, width, height)
            return detections(
                probabilities,
                boxes,
                width=width,
                height=height,
                nms_thresh=options.nms_thresh,
                score_thresh=options.score_thresh,
                detections_per_img=options.detections_per_img,
            )

        return distributed_map(test, TestView(scales), 1, found, devices)

    def examples(self, train: Index, devices: Devices) -> Iterator[Tensor]:
        """A few training images at the middle scale, prepared, one at a time."""
        scales = sorted(self.choices.min_size)
        view = TestView([(scales[len(scales) // 2], self.choices.max_size)])
        for batch in load_batches(
            train, view, sequential_keys(evenly_spaced(len(train), CALIBRATION_IMAGES), 1), seed=0
        ):
            yield self.inputs(batch.images.to(devices.device))


def measure(
    context: EvalContext,
    sets: Sets,
    build: Callable[[PretrainedModel, int], Detector],
    tests: dict[str, Sequence[tuple[int, int]]],
    about: dict[str, Any],
) -> EvalResult:
    """Train a detector for each seed and test it.

    Args:
        context: of the evaluation.
        sets: of it.
        build: model and seed -> detector.
        tests: ending of the values' names -> short and longest sides at which test images are seen.
        about: further details.

    Returns:
        `map`: mean over classes of the 11-point average precision at overlap .5, a class never present left out;
        `map_area` by area; `map75` by 11 points at overlap .75. Chance finds nothing: chance is 0.
    """
    options = context.spec.protocol
    assert isinstance(options, Options)
    values: dict[str, list[float]] = {}
    details: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    for seed in context.spec.seeds:
        task = build(read_model(context.model), seed).to(context.devices.device)
        learning = sum(p.numel() for p in task.parameters() if p.requires_grad)
        settled = calibrate_bn(task.body, task.examples(sets.train, context.devices))
        context.devices.broadcast(task)
        print(
            f"seed {seed}: {len(sets.train)} images with objects to learn, {learning} parameters learn"
            + (f", {settled} batch norms take their statistics from training images" if settled else ""),
            flush=True,
        )
        folder = context.folder / f"seed-{seed}"
        folder.mkdir(exist_ok=True)
        fitted = fit(task, sets.train, options.schedule, seed=seed, folder=folder, devices=context.devices)
        for ending, scales in tests.items():
            found = task.detect(sets.test, scales, context.devices)
            at = {share: curves(found, sets.truth, len(sets.test.classes), overlap=share) for share in (0.5, 0.75)}
            scored = {
                "map": [curve.eleven_points() if curve else None for curve in at[0.5]],
                "map_area": [curve.area() if curve else None for curve in at[0.5]],
                "map75": [curve.eleven_points() if curve else None for curve in at[0.75]],
            }
            for name, aps in scored.items():
                values.setdefault(f"{name}{ending}", []).append(percent(mean_of(aps)))
            if not details:
                details = about | _details(context, sets, found, at[0.5], scored, fitted, task.chance_loss)
                measured = fitted.measured
        print("test: " + ", ".join(f"{name} {numbers[-1]:.2f} %" for name, numbers in values.items()), flush=True)
    return EvalResult(values, 0.0, details, measured)


def _details(
    context: EvalContext,
    sets: Sets,
    found: list[Detections],
    at: list[Curve | None],
    scored: dict[str, list[float | None]],
    fitted: TrainResult,
    chance_loss: float,
) -> dict[str, Any]:
    names = sets.test.classes
    losses = [[int(row["step"]) for row in fitted.curve], [round(row["loss"], 4) for row in fitted.curve]]
    return {
        "classes": names,
        **{
            key: {name: None if ap is None else percent(ap) for name, ap in zip(names, scored[value], strict=True)}
            for key, value in (("per_class", "map"), ("per_class_75", "map75"))
        },
        "classes_without_objects": [name for name, curve in zip(names, at, strict=True) if curve is None],
        "num_train_images_with_objects": len(sets.train),
        "detections": sum(len(one.scores) for one in found),
        "drawn": draw(sets.test, found, sets.truth) if not context.devices.rank else [],
        "lines": [
            *precision_lines(names, at, sets.truth),
            {"title": f"loss (chance {chance_loss:.2f})", "x": "step", "y": "loss", "series": {"training": losses}},
        ],
    }
