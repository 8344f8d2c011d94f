"""Options that evaluation protocols share."""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.base import NameFile, Options, Spec
from ssltransfer.config.formats import TargetKind
from ssltransfer.config.schedule import Schedule


class Pool(Spec):
    """Pooling of a convolutional map; exactly one of the three."""

    max: int | None = Field(None, ge=1, description="Adaptive max-pooling to this side.")
    avg: int | None = Field(None, ge=1, description="Adaptive average pooling to this side.")
    max_dim: int | None = Field(
        None, ge=1, description="Max-pooling with the smallest integer stride that leaves at most this many dimensions."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if [self.max, self.avg, self.max_dim].count(None) != 2:
            raise ValueError("give one of max, avg and max_dim")
        return self

    @property
    def slug(self) -> str:
        """max4, avg1 or max_dim9000."""
        return next(f"{how}{size}" for how, size in self if size)


class ProtocolOptions(Options):
    """The base class of protocol options."""

    input_kind: ClassVar[Literal["model", "features"]] = "model"  # a model and images, or features of that stage
    needs_train: ClassVar[bool] = True  # a training set
    label_type: ClassVar[Literal["single", "multi"] | None] = "single"  # that every image must have
    targets: ClassVar[TargetKind | None] = None  # that every image must have
    finetunes: ClassVar[bool] = False  # the backbone itself is trained
    primary_metric: ClassVar[str] = "accuracy"  # that tables show
    unit: ClassVar[str] = "%"  # of all metrics that `units` does not name
    units: ClassVar[Mapping[str, str]] = {}
    lower_is_better: ClassVar[frozenset[str]] = frozenset()  # metrics of which smaller values are better


class TrainedProtocol(ProtocolOptions):
    """A protocol that trains a task on images.

    The properties and methods are for cost estimates; each pair is of a training image and of a test image.
    """

    schedule: Schedule

    @property
    def regions(self) -> tuple[int, int]:
        """Regions of an image that a detector classifies."""
        return 0, 0

    def forward_passes(self, backbone: BackboneOptions) -> tuple[float, float]:
        """Forward passes of an image, in passes on a square of `img_size`."""
        return 1.0, 1.0

    def num_trainings(self, backbone: BackboneOptions) -> int:
        """Trainings per seed."""
        return 1


class FineTuning(TrainedProtocol):
    """A protocol that fine-tunes the model, optionally after changing its weights."""

    finetunes: ClassVar[bool] = True
    fuse_bn: bool = Field(
        False, description="Fold each batch norm into the convolution before it; no effect without batch norms."
    )
    data_dependent_init: bool = Field(
        False,
        description="Unit variance of every channel, then equal relative gradients of all layers "
        "(Krähenbühl et al. 2016); not for residual networks.",
    )


class LabelSubset(Spec):
    """Which training images have labels: drawn for each seed, or listed; exactly one of the three."""

    fraction: float | None = Field(None, gt=0, lt=1, description="Fraction of each class, rounded, at least one image.")
    per_class: int | None = Field(None, ge=1, description="Images per class; 1: one-shot.")
    file: NameFile | None = Field(
        None, description="Text file with one image per line: its path in the set, or its file name."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if [self.fraction, self.per_class, self.file].count(None) != 2:
            raise ValueError("give one of fraction, per_class and file")
        return self


LAYER = "Default: the model's last layer."
POOL = "Default: the whole map, flattened. For convolutional layers use for example avg: 1."
PATCHES = "Mean over the 3 x 3 patches of a central square, each of the backbone's size: for models trained on patches."
LASSO = "L1 penalty of a learned mix of block3's units, which the head reads; resnet101-v2 only."
LABEL_SUBSET = "Training images with labels. Default: all."


class FeatureProtocol(ProtocolOptions):
    """A protocol on cached features."""

    input_kind: ClassVar[Literal["model", "features"]] = "features"
    layer: str | None = Field(None, description=LAYER)
    pool: Pool | None = Field(None, description=POOL)
    patches: bool = Field(False, description=PATCHES)
    label_subset: LabelSubset | None = Field(None, description=LABEL_SUBSET)

    def flops(self, train: int, test: int, dims: int, classes: int) -> float:
        """Floating-point operations, for cost estimates: here those of all similarities of test and training images."""
        return 2.0 * train * test * dims
