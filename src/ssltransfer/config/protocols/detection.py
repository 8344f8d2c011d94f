"""Object detection on PASCAL VOC: Fast and Faster R-CNN."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.base import USUAL_ASPECT, InputFile
from ssltransfer.config.protocols.base import LASSO, TrainedProtocol
from ssltransfer.config.schedule import Schedule

Side = Annotated[int, Field(ge=16)]
Share = Annotated[float, Field(ge=0, le=1)]
USUAL_PROPOSALS = 2000  # per image, of selective search


class Detection(TrainedProtocol):
    """Options of detectors; sizes are in pixels."""

    label_type = None
    targets = "boxes"
    finetunes = True
    primary_metric = "map"
    min_size: tuple[Side, ...] = Field(
        min_length=1, description="Short sides of training images; one is drawn per image."
    )
    max_size: Side = Field(description="Longest side of a training image, aspect kept.")
    test_min_size: Side = Field(600, description="Short side of test images.")
    test_max_size: Side = Field(1000, description="Longest side of test images.")
    roi_batch_size_per_image: int = Field(ge=2, description="RoIs sampled per training image.")
    fg_fraction: Share = Field(0.25, description="Largest fraction of foreground (IoU >= 0.5) in them.")
    bg_iou_range: tuple[Share, Share] = Field(description="IoU of background RoIs: from, and below.")
    pooling: Literal["pool", "align"] = Field(description="RoI max pooling, or RoIAlign.")
    freeze_at: int = Field(ge=0, description="Number of frozen first layers.")
    nms_thresh: Share = Field(0.3, description="IoU threshold of non-maximum suppression in each class.")
    score_thresh: Share = Field(0.05, description="Detections with a lower score are dropped.")
    detections_per_img: int = Field(100, ge=1, description="Detections kept per image.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.bg_iou_range
        if not low < high <= 0.5:
            raise ValueError(
                f"bg_iou_range {[low, high]} must be ascending and end at 0.5 at most, where the foreground begins"
            )
        return self

    @property
    def test_min_sizes(self) -> tuple[int, ...]:
        """Short sides at which each image is tested."""
        return (self.test_min_size,)

    def forward_passes(self, backbone: BackboneOptions) -> tuple[float, float]:
        """Passes of whole images: at one of the sizes in training, at all of them in the test."""
        area = backbone.img_size**2 / USUAL_ASPECT
        training = sum(side**2 for side in self.min_size) / len(self.min_size)
        return training / area, sum(side**2 for side in self.test_min_sizes) / area


class FastRcnn(Detection):
    """VOC07 detection: Fast R-CNN on precomputed proposals, mean average precision."""

    name: Literal["fast-rcnn"] = "fast-rcnn"
    version = 2
    reference = "Girshick 2015, fast-rcnn; Noroozi et al. 2018; protocols 4.2a"
    proposals: Literal["selective-search", "grid"] | tuple[InputFile, ...] = Field(
        "selective-search",
        description="Files (.mat, .pkl), OpenCV's selective search, or a regular grid of boxes.",
    )
    min_size: tuple[Side, ...] = Field((480, 576, 688, 864, 1200), min_length=1)
    max_size: Side = 2000
    multiscale_min_size: tuple[Side, ...] | None = Field(
        (480, 576, 688, 864, 1200),
        min_length=1,
        description="Also test at these short sides (longest side max_size), each RoI at the one that brings its area "
        "nearest to 224 x 224; null: no.",
    )
    roi_batch_size_per_image: int = Field(64, ge=2)
    bg_iou_range: tuple[Share, Share] = (0.1, 0.5)
    pooling: Literal["pool", "align"] = "pool"
    reinit_fc: bool = Field(False, description="Reinitialize fc6 and fc7 even where the model has them.")
    freeze_at: int = Field(1, ge=0)
    dropout: float = Field(0.5, ge=0, lt=1)
    schedule: Schedule = Schedule(steps=150_000, batch_size=2, lr=0.001, bias_lr_mult=2.0, step_size=50_000)

    @property
    def test_min_sizes(self) -> tuple[int, ...]:
        """Short sides at which each image is tested."""
        return (self.test_min_size, *(self.multiscale_min_size or ()))

    @property
    def regions(self) -> tuple[int, int]:
        """Sampled in training; all proposals in the test, and again with several sizes."""
        return self.roi_batch_size_per_image, USUAL_PROPOSALS * (2 if self.multiscale_min_size else 1)


class FasterRcnn(Detection):
    """VOC07 detection: Faster R-CNN on block3 and block4, mean average precision."""

    name: Literal["faster-rcnn"] = "faster-rcnn"
    version = 2
    reference = "Ren et al. 2015; Doersch & Zisserman 2017; protocols 4.2b"
    min_size: tuple[Side, ...] = Field((480, 576, 688, 864), min_length=1)
    max_size: Side = 1400
    roi_batch_size_per_image: int = Field(128, ge=2)
    bg_iou_range: tuple[Share, Share] = (0.0, 0.5)
    pooling: Literal["pool", "align"] = "align"
    freeze_at: int = Field(0, ge=0)
    l1_layer_mix: float | None = Field(None, ge=0, description=LASSO)
    anchor_scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (8, 16, 32), min_length=1, description="Sides of anchors in strides of the map."
    )
    anchor_ratios: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.5, 1, 2), min_length=1, description="Height over width."
    )
    rpn_batch_size_per_image: int = Field(256, ge=2, description="Anchors sampled per training image.")
    rpn_positive_fraction: Share = Field(0.5, description="Largest fraction of foreground in them.")
    rpn_iou_thresh: tuple[Share, Share] = Field(
        (0.3, 0.7), description="IoU below which anchors are background, and from which they are foreground."
    )
    rpn_nms_thresh: Share = Field(0.7, description="IoU threshold of non-maximum suppression of proposals.")
    rpn_pre_nms_top_n: tuple[int, int] = Field(
        (12_000, 6_000), description="Proposals before it, in training and test."
    )
    rpn_post_nms_top_n: tuple[int, int] = Field((2_000, 300), description="Proposals after it, in training and test.")
    schedule: Schedule = Schedule(steps=70_000, batch_size=1, lr=0.001, bias_lr_mult=2.0, milestones=(50_000,))

    @property
    def regions(self) -> tuple[int, int]:
        """Sampled in training; all proposals in the test."""
        return self.roi_batch_size_per_image, self.rpn_post_nms_top_n[1]
