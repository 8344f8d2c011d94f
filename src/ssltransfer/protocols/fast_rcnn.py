"""Fast R-CNN on VOC07 (Girshick 2015, released fast-rcnn; Noroozi et al. 2018; protocols 4.2a)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ssltransfer.config.protocols import FastRcnn as Options
from ssltransfer.data.targets import Boxes
from ssltransfer.logs import logger
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.protocols.base import PROTOCOLS, EvalContext, EvalResult, percent
from ssltransfer.protocols.detection.ap import overlaps
from ssltransfer.protocols.detection.backbones import DetectorBackbone, FcBackbone, Res5Backbone
from ssltransfer.protocols.detection.boxes import FOREGROUND
from ssltransfer.protocols.detection.detector import Detector, train_and_detect, with_boxes
from ssltransfer.protocols.detection.proposals import find_proposals
from ssltransfer.protocols.detection.transforms import NO_OBJECT, RoiTransform

REGION = 224.0**2  # pixels; each RoI is read at the scale that brings its area nearest to this
Proposals = Sequence[Sequence[np.ndarray]]


@PROTOCOLS.register(Options)
def evaluate(context: EvalContext) -> EvalResult:
    """Average precision at one short side of the test images, and at several (`..._multi`).

    Raises:
        ArtifactError: a set has no boxes, or proposals are missing.
        LayerError: the backbone has neither fully-connected layers nor residual blocks.
    """
    options = context.options(Options)
    context, truth = with_boxes(context)
    named = ((context.spec.train, context.train), (context.spec.test, context.test))
    given = options.proposals
    how = given if isinstance(given, str) else [file.checked() for file in given]
    proposals, source = find_proposals(named, how, folder=context.folder, devices=context.devices)
    number = round(float(np.mean([len(boxes) for boxes in proposals[1]])), 1)
    recall = covered(proposals[1], truth)
    details = {"proposals": source, "proposals_per_image": number, "proposal_recall": recall}
    logger.info(f"proposals: {source}, {number} per test image; recall at IoU 0.5: {recall:.1f} %")
    tests: dict[str, Sequence[tuple[int, int]]] = {"": [(options.test_min_size, options.test_max_size)]}
    if options.multiscale_min_size:
        tests["_multi"] = [(short, options.max_size) for short in options.multiscale_min_size]

    def build(model: PretrainedModel, seed: int) -> FastRcnn:
        return FastRcnn(model, context.model.as_posix(), options, len(context.test.classes), seed, proposals)

    return train_and_detect(context, truth, build, tests, details)


class FastRcnn(Detector):
    """RoI pooling, then fc6 and fc7 or the last residual block.

    `proposals` are those of the training and of the test images, float32 (n, 4) each, in pixels of the image.
    """

    def __init__(
        self, model: PretrainedModel, where: str, options: Options, classes: int, seed: int, proposals: Proposals
    ):
        super().__init__(model, _body(model, where, options, seed), options, classes, seed)
        self.proposals, self.test_proposals = proposals

    @property
    def transform(self) -> RoiTransform:
        """Random scale and flip, with sampled RoIs."""
        return RoiTransform(self.options.min_size, self.options.max_size, self.proposals, self.roi_sampler)

    def losses(self, image: Tensor, targets: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        """See `Detector`: losses of classes and boxes, means over the RoIs that the loader sampled."""
        present = targets["labels"] != NO_OBJECT
        rois, labels, matched = (targets[name][present] for name in ("rois", "labels", "matched_boxes"))
        losses = self.roi_losses(self.body(self.inputs(image)), rois, labels, matched)
        return {"loss": losses["loss_class"] + losses["loss_box"], **losses}

    def predict(self, sample: int, views: Sequence[Tensor], width: int, height: int) -> tuple[Tensor, Tensor]:
        """See `Detector`: each RoI in the view that brings its area nearest to 224 x 224 (fast-rcnn's test.py)."""
        proposals = torch.from_numpy(self.test_proposals[sample]).to(views[0].device)
        factors = proposals.new_tensor([[view.shape[-1] / width, view.shape[-2] / height] for view in views])
        areas = (proposals[:, 2:] - proposals[:, :2]).prod(1)
        chosen = (areas[:, None] * factors.prod(1) - REGION).abs().argmin(1)
        # An image may have no proposals.
        probabilities = [proposals.new_zeros(0, self.classes + 1)]
        boxes = [proposals.new_zeros(0, self.classes, 4)]
        for number, view in enumerate(views):
            rois, factor = proposals[chosen == number], factors[number].repeat(2)
            if len(rois):
                view_probabilities, view_boxes = self.predict_boxes(self.body(self.inputs(view)), rois * factor)
                probabilities.append(view_probabilities)
                boxes.append(view_boxes / factor)
        return torch.cat(probabilities), torch.cat(boxes)


def _body(model: PretrainedModel, where: str, options: Options, seed: int) -> DetectorBackbone:
    backbone = model.backbone.options
    if backbone.top_layers:
        return FcBackbone(model, options.reinit_fc, options.dropout, options.pooling, seed)
    if "block3" in backbone.layers:
        return Res5Backbone(model, options.pooling, seed)
    raise LayerError(
        f"{where}: a {backbone.name} has neither fully-connected layers nor residual blocks for a box head; "
        "name another backbone."
    )


def covered(proposals: Sequence[np.ndarray], truth: Sequence[Boxes]) -> float:
    """Percent of the objects (difficult ones ignored) with a proposal of IoU 0.5 or more: an upper bound of recall."""
    reached = [
        bool((overlaps(box, boxes) >= FOREGROUND).any())
        for boxes, objects in zip(proposals, truth, strict=True)
        for box in objects.corners[~objects.difficult]
    ]
    return percent(float(np.mean(reached)))
