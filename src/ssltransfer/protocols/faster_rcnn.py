"""Faster R-CNN on block3 and block4 (Ren et al. 2015; Doersch & Zisserman 2017; protocols 4.2b)."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from ssltransfer.config.protocols import FasterRcnn as Options
from ssltransfer.data.rng import seed_of
from ssltransfer.data.transforms import Transform
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.protocols.base import PROTOCOLS, EvalContext, EvalResult
from ssltransfer.protocols.detection.backbones import Res5Backbone
from ssltransfer.protocols.detection.detector import Detector, train_and_detect, with_boxes
from ssltransfer.protocols.detection.transforms import NO_OBJECT, DetectionTransform

PHASES = ("training", "testing")  # torchvision's keys


@PROTOCOLS.register(Options)
def evaluate(context: EvalContext) -> EvalResult:
    """Average precision at one short side of the test images.

    Raises:
        ArtifactError: a set has no boxes.
        LayerError: the backbone has no block3 and block4.
    """
    options = context.options(Options)
    context, truth = with_boxes(context)

    def build(model: PretrainedModel, seed: int) -> FasterRcnn:
        return FasterRcnn(model, options, len(context.test.classes), seed)

    return train_and_detect(context, truth, build, {"": [(options.test_min_size, options.test_max_size)]}, {})


class FasterRcnn(Detector):
    """A residual network: the RPN reads block3, block4 is the box head.

    torchvision's region proposal network. Unlike py-faster-rcnn it is also trained on anchors that cross the edge of
    the image. With `l1_layer_mix` the map is a mix of block3's units.
    """

    multiple: ClassVar[int] = 32  # torchvision needs a map whose stride is a whole number

    def __init__(self, model: PretrainedModel, options: Options, classes: int, seed: int):
        body = Res5Backbone(model, options.pooling, seed, mixed=options.l1_layer_mix is not None)
        super().__init__(model, body, options, classes, seed)
        self.mix, self.l1_layer_mix = body.mix, options.l1_layer_mix
        sides = tuple(scale * self.body.stride for scale in options.anchor_scales)
        anchors = AnchorGenerator((sides,), (options.anchor_ratios,))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "rpn"))
            head = RPNHead(self.body.channels, anchors.num_anchors_per_location()[0])
        low, high = options.rpn_iou_thresh
        self.rpn = RegionProposalNetwork(
            anchors,
            head,
            fg_iou_thresh=high,
            bg_iou_thresh=low,
            batch_size_per_image=options.rpn_batch_size_per_image,
            positive_fraction=options.rpn_positive_fraction,
            pre_nms_top_n=dict(zip(PHASES, options.rpn_pre_nms_top_n, strict=True)),
            post_nms_top_n=dict(zip(PHASES, options.rpn_post_nms_top_n, strict=True)),
            nms_thresh=options.rpn_nms_thresh,
        )
        self.chance_loss += math.log(2)  # object or not, of an anchor

    @property
    def transform(self) -> Transform:
        """Random scale and flip."""
        return DetectionTransform(self.options.min_size, self.options.max_size)

    def losses(self, image: Tensor, targets: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        """See `Detector`: the losses of the RPN and of the box head, each the mean over its sample."""
        present = targets["classes"] != NO_OBJECT
        boxes, classes = targets["boxes"][present], targets["classes"][present]
        # torchvision samples anchors by the default generator.
        with torch.random.fork_rng([image.device] if image.is_cuda else []):
            torch.manual_seed(seed)
            maps, rois, losses = self._proposed(image, boxes)
            sampled = self.roi_sampler(rois, boxes, classes)
        columns = self.roi_losses(maps, *sampled)
        columns |= {f"rpn_{name}": value for name, value in losses.items()}
        loss = torch.stack([columns[name] for name in columns if name != "accuracy"]).sum()
        if self.mix is not None and self.l1_layer_mix is not None and self.training:
            loss = loss + self.l1_layer_mix * self.mix.penalty
        return {"loss": loss, **columns}

    def details(self) -> dict[str, Any]:
        """The mix of units."""
        return {} if self.mix is None else {"mix": self.mix.rounded}

    def _proposed(self, image: Tensor, objects: Tensor | None = None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Map of an image, proposals (N, 4) without gradient, and, given its objects (M, 4), the losses of the RPN."""
        x = self.inputs(image)
        maps = self.body(x)
        images = ImageList(x, [(image.shape[-2], image.shape[-1])])
        # Half precision is too coarse for coordinates.
        with torch.autocast(x.device.type, enabled=False):
            (rois,), losses = self.rpn(images, {"0": maps.float()}, None if objects is None else [{"boxes": objects}])
        return maps, rois.detach(), losses

    def predict(self, sample: int, views: Sequence[Tensor], width: int, height: int) -> tuple[Tensor, Tensor]:
        """See `Detector`."""
        (view,) = views
        maps, rois, _ = self._proposed(view)
        probabilities, boxes = self.predict_boxes(maps, rois)
        factor = boxes.new_tensor([view.shape[-1] / width, view.shape[-2] / height] * 2)
        return probabilities, boxes / factor
