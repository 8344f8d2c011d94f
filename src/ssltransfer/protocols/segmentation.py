"""A class a pixel by fine-tuning FCN-32s on any backbone (Long et al. 2015, voc-fcn-alexnet; protocols 4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.config.protocols import Segmentation as Options
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.data.targets import VOID, read_target
from ssltransfer.data.transforms import Transform
from ssltransfer.models.build import with_top
from ssltransfer.models.fcn import Fcn
from ssltransfer.models.normalize import Normalize, normalize
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.protocols.base import EvalContext, EvalResult, evenly_spaced, learning, percent
from ssltransfer.protocols.confusion import all_background, confusion, intersection_over_union, mean_iou, shares
from ssltransfer.protocols.distributed import distributed_map
from ssltransfer.protocols.finetune import prepare_for_finetuning
from ssltransfer.protocols.mask_drawing import beside
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import fit
from ssltransfer.training.progress import Progress
from ssltransfer.training.task import Task

BACKGROUND = "background"
DRAWN = 6  # test images


def evaluate(context: EvalContext) -> EvalResult:
    """Mean intersection over union of the classes and the background, from one confusion matrix of all test images.

    A class that no test pixel has or is given is left out of the mean. Test images keep their size and go through
    the network one at a time.

    Raises:
        ArtifactError: a set has no masks, or one class alone in them, or the two have other classes.
        LayerError: the network cannot be made fully convolutional, or cannot be rescaled.
    """
    options = context.spec.protocol
    assert isinstance(options, Options)
    names = _classes(context)
    parts, _ = (_parts(index, name, names) for index, name in _sets(context))
    unseen = [name for name, part in zip(names, parts, strict=True) if not part]
    if unseen:
        print(
            f"{context.spec.train}: no pixel of {', '.join(unseen)}; a class without any cannot be learned", flush=True
        )
    values: dict[str, list[float]] = {}
    details: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    chance = 0.0
    for seed in context.spec.seeds:
        model = prepare_for_finetuning(
            with_layers(read_model(context.model), seed),
            options,
            context.train,
            context.devices,
            seed_of(seed, "prepare"),
        )
        task = SegmentationTask(model, options, parts)
        trained = sum(p.numel() for p in task.parameters() if p.requires_grad)
        print(f"seed {seed}: {trained} parameters learn ({options.trainable})", flush=True)
        folder = context.folder / f"seed-{seed}"
        folder.mkdir(exist_ok=True)
        fitted = fit(
            task, context.train, options.schedule, seed=seed, folder=folder, devices=context.devices, val=context.test
        )
        shown = set() if details else set(evenly_spaced(len(context.test), DRAWN))
        matrix, drawn = task.evaluate(context.test, context.devices, shown)
        for name, share in shares(matrix).items():
            values.setdefault(name, []).append(percent(share))
        print(f"test: miou {values['miou'][-1]:.2f} %, pixels {values['pixel_accuracy'][-1]:.2f} %", flush=True)
        if not details:
            chance, measured = percent(mean_iou(all_background(matrix))), fitted.measured
            details = {**_details(names, matrix), "unseen_classes": unseen, "drawn": drawn}
            details |= {"chance_loss": round(task.chance_loss, 6), "lines": [learning(fitted.curve, "loss")]}
    return EvalResult(values, chance, details, measured)


@dataclass(frozen=True)
class WithMask(Transform):
    """A image as it is and its mask: neither resized nor cut nor mirrored."""

    padding: ClassVar[Mapping[str, float]] = {"mask": VOID}

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """uint8 (3, H, W) -> the same and `mask`, uint8 (H, W)."""
        return {"image": image, "mask": mask_of(index, sample)}


def mask_of(index: Index, sample: int) -> Tensor:
    """uint8 (H, W), 0 background, 1.. the classes, 255 void.

    Raises:
        ArtifactError: it cannot be read any more.
    """
    mask = read_target(index, sample)
    assert isinstance(mask, np.ndarray)
    return torch.from_numpy(mask.copy())


class SegmentationTask(Task):
    """FCN-32s of a model, and softmax cross-entropy over the pixels that are not void.

    Every image goes through the network alone, in its own size, and its loss is the mean over its pixels: neither
    batch nor micro-batch changes what is computed. Batch norms therefore keep the statistics that the model came
    with; their scales and shifts learn.

    Args:
        model: with fully-connected layers, if its backbone may have any; taken apart.
        options: of the protocol.
        parts: float64 (C,), share of each class in a training image, in the mean; gives the chance-level loss.
    """

    def __init__(self, model: PretrainedModel, options: Options, parts: np.ndarray):
        super().__init__()
        self.rule: Normalize = model.normalization
        self.options, self.classes = options, len(parts)
        self.network = Fcn(model.backbone, len(parts), padding=options.padding, dropout=options.dropout)
        network = self.network
        frozen: dict[str, list[nn.Module]] = {
            "all": [],
            "fc6-8": [network.backbone],
            "score": [network.backbone, network.head],
        }
        self.requires_grad_(True)
        for part in frozen[options.trainable]:
            part.requires_grad_(False)
        there = parts[parts > 0]
        self.chance_loss = float(-(there * np.log(there)).sum())

    @property
    def transform(self) -> WithMask:
        """Images and masks as they are."""
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
        for image, mask in _cut(batch):
            logits = self.network(normalize(image[None], self.rule))
            losses.append(F.cross_entropy(logits, mask[None].long(), ignore_index=VOID))
        return {"loss": torch.stack(losses).mean()}

    @torch.inference_mode()
    def evaluate(self, test: Index, devices: Devices, shown: set[int]) -> tuple[np.ndarray, list[dict[str, str]]]:
        """Confusion matrix, int64 (C, C), of all test images, and drawings of those that are shown.

        Several processes take the images in turns.
        """
        self.eval()
        total = np.zeros((self.classes, self.classes), np.int64)

        def counted(batch: Batch) -> dict[str, str] | None:
            with devices.autocast(self.options.schedule.precision):
                logits = self.network(normalize(batch.images, self.rule))
            predicted, truth = logits[0].argmax(0).byte().cpu().numpy(), batch.targets["mask"][0].cpu().numpy()
            np.add(total, confusion(truth, predicted, self.classes), out=total)
            sample = int(batch.ids)
            if sample not in shown:
                return None
            image = batch.images[0].permute(1, 2, 0).cpu().numpy()
            return beside(test.paths[sample], image, truth, predicted, test.classes)

        drawn = distributed_map(test, self.transform, 1, counted, devices)
        return np.sum(devices.all_gather(total), axis=0), [one for one in drawn if one]


def _cut(batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """Each image (3, H, W) and its mask (H, W), without what filled up the batch."""
    return [
        (image[:, :height, :width], mask[:height, :width])
        for image, mask, (height, width) in zip(
            batch.images, batch.targets["mask"], batch.targets["sizes"].tolist(), strict=True
        )
    ]


def with_layers(model: PretrainedModel, seed: int) -> PretrainedModel:
    """The model, with fresh fully-connected layers where its backbone may have them and it does not.

    Fresh ones start by Kaiming's rule and depend on the seed alone; those that a model has are kept.
    """
    options = model.backbone.options
    if model.backbone.layers == options.layers or not options.top_layers:
        return model
    return replace(model, backbone=with_top(model.backbone, seed=seed_of(seed, "fc6-7")))


def class_shares(index: Index, classes: int) -> np.ndarray:
    """float64 (C,): the share that each class has of the pixels of a image that are not void, in the mean."""
    total = np.zeros(classes)
    progress = Progress("masks", 0, len(index), 1)
    for sample in range(len(index)):
        counts = np.bincount(mask_of(index, sample).numpy().ravel(), minlength=VOID + 1)[:classes]
        total += counts / counts.sum()
        progress.step()
        progress.log("pixels counted")
    progress.close()
    return total / len(index)


def _sets(context: EvalContext) -> tuple[tuple[Index, str], tuple[Index, str]]:
    return (context.train, context.spec.train), (context.test, context.spec.test)


def _parts(index: Index, name: str, names: list[str]) -> np.ndarray:
    """`class_shares`, of a set that has something to tell apart."""
    parts = class_shares(index, len(names))
    if (parts > 0).sum() < 2:
        raise ArtifactError(f"{name}: its masks hold {names[int(parts.argmax())]} alone; name a set of other images.")
    return parts


def _classes(context: EvalContext) -> list[str]:
    """Background, and the classes of both sets."""
    for index, name in _sets(context):
        if index.targets is None or index.targets.kind != "masks":
            raise ArtifactError(f"{name}: has no class for each pixel; name a set of format voc or sbd with masks.")
    if context.train.classes != context.test.classes:
        raise ArtifactError(
            f"{context.spec.test}: its classes are not those of {context.spec.train}; name two VOC sets."
        )
    return [BACKGROUND, *context.test.classes]


def _details(names: list[str], matrix: np.ndarray) -> dict[str, Any]:
    each = intersection_over_union(matrix)
    return {
        "classes": names,
        "per_class": {n: None if np.isnan(iou) else percent(iou) for n, iou in zip(names, each, strict=True)},
        "classes_ignored_in_mean": [n for n, iou in zip(names, each, strict=True) if np.isnan(iou)],
        "confusion": matrix.tolist(),
    }
