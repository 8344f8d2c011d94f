"""Faster R-CNN on block3 and block4 (Ren et al. 2015; Doersch & Zisserman 2017; protocols 4.2b)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from ssltransfer.config.protocols import FasterRcnn as Options
from ssltransfer.data.batches import Batch
from ssltransfer.data.draws import Draws, seed_of
from ssltransfer.data.transforms import Paired
from ssltransfer.models.weights import Model
from ssltransfer.stages.evaluate.base import Given, Outcome
from ssltransfer.stages.evaluate.detection.bodies import Blocks
from ssltransfer.stages.evaluate.detection.boxes import region_loss
from ssltransfer.stages.evaluate.detection.detector import Detector, measure, sets_of
from ssltransfer.stages.evaluate.detection.views import NOTHING, TrainingView


def evaluate(given: Given) -> Outcome:
    """Average precision at one short side of the test pictures.

    Raises:
        ArtefactError: a set has no boxes.
        LayerError: the trunk has no block3 and block4.
    """
    options = given.spec.protocol
    assert isinstance(options, Options)
    sets = sets_of(given)
    tests: dict[str, Sequence[tuple[int, int]]] = {"": [(options.test_scale, options.test_max_side)]}

    def build(model: Model, seed: int) -> FasterRcnn:
        return FasterRcnn(model, options, len(sets.test.classes), seed)

    return measure(given, sets, build, tests, {})


class FasterRcnn(Detector):
    """A residual trunk whose block3 proposes regions and whose block4 judges them.

    torchvision's region proposal network: a 3x3 convolution and anchors at every place of the map; anchors that pass
    the picture's edge are learnt from too, which py-faster-rcnn leaves out.

    Args:
        model: where weights come from.
        options: of the protocol.
        classes: how many.
        seed: of the fresh layers.
    """

    multiple: ClassVar[int] = 32  # so that the anchors' spacing, a whole number to torchvision, is the map's

    def __init__(self, model: Model, options: Options, classes: int, seed: int):
        super().__init__(model, Blocks(model, options.pooling, seed), options, classes, seed)
        sides = tuple(scale * self.body.stride for scale in options.anchor_scales)
        anchors = AnchorGenerator((sides,), (options.anchor_ratios,))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "rpn"))
            head = RPNHead(self.body.channels, anchors.num_anchors_per_location()[0])
        low, high = options.rpn_overlaps
        self.rpn = RegionProposalNetwork(
            anchors,
            head,
            fg_iou_thresh=high,
            bg_iou_thresh=low,
            batch_size_per_image=options.rpn_samples,
            positive_fraction=options.rpn_foreground,
            pre_nms_top_n=dict(zip(("training", "testing"), options.considered, strict=True)),
            post_nms_top_n=dict(zip(("training", "testing"), options.proposals, strict=True)),
            nms_thresh=options.rpn_nms,
        )
        self.guess += math.log(2)  # thing or not, of an anchor

    @property
    def transform(self) -> Paired:
        """Whole pictures with their boxes."""
        return TrainingView(self.choices.scales, self.choices.max_side)

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Losses of anchors and of regions, summed; regions and anchors are drawn by torch's generator."""
        things = []
        for boxes, classes in zip(batch.others["boxes"], batch.others["classes"], strict=True):
            there = classes != NOTHING
            things.append({"boxes": boxes[there], "classes": classes[there]})
        sizes = batch.others["sizes"]
        x = self.inputs(batch.pictures, sizes)
        maps = self.body(x)
        proposals, losses = self._proposed(x, maps, sizes, things)
        drawn = [
            self.sampling(regions, one["boxes"], one["classes"]) for regions, one in zip(proposals, things, strict=True)
        ]
        regions, labels, shown = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        owners = torch.arange(len(batch), device=labels.device).repeat_interleave(
            torch.tensor([len(one[1]) for one in drawn], device=labels.device)
        )
        logits, deltas = self.judged(maps, regions, owners)
        named, placed = region_loss(logits, deltas, regions, labels, shown)
        found = {"loss_class": named, "loss_box": placed, **{f"rpn_{key}": value for key, value in losses.items()}}
        right = (logits.argmax(1) == labels).float().mean()
        return {"loss": torch.stack(list(found.values())).sum(), **found, "accuracy": right}

    def _proposed(
        self, x: Tensor, maps: Tensor, sizes: Tensor, things: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Regions of each picture, without gradient, and in training the losses."""
        images = ImageList(x, [(height, width) for height, width in sizes.tolist()])
        # Half precision is too coarse for corners.
        with torch.autocast(x.device.type, enabled=False):
            regions, losses = self.rpn(images, {"0": maps.float()}, things)
        return [one.detach() for one in regions], losses

    def seen(self, sample: int, views: Sequence[Tensor], width: int, height: int) -> tuple[Tensor, Tensor]:
        """See `Detector`."""
        (view,) = views
        sizes = torch.tensor([view.shape[-2:]])
        x = self.inputs(view, sizes)
        maps = self.body(x)
        (regions,), _ = self._proposed(x, maps, sizes)
        probabilities, boxes = self.answers(maps, regions)
        factor = boxes.new_tensor([view.shape[-1] / width, view.shape[-2] / height] * 2)
        return probabilities, boxes / factor
