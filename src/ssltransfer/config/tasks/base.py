"""Options of all pretext tasks."""

from typing import ClassVar, NamedTuple

from pydantic import Field

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.base import Normalize, Options
from ssltransfer.config.formats import TargetKind


class ForwardPasses(NamedTuple):
    """Forward passes that one image costs: `number` of `backbone`, each on a square of `size` pixels."""

    number: float
    backbone: BackboneOptions
    size: int


class TaskOptions(Options):
    """Options of a pretext task; the class of the same file name in tasks/pretext/ implements them.

    `targets`: targets that the dataset must provide.
    `is_trainable`: whether the task is trained by gradient descent.
    `needs_data`: whether the task needs a dataset of its own.
    `is_network`: whether the model is a neural network.
    `exports_fc`: whether the model keeps the fully-connected layers of the backbone.
    `supports_multi_task`: whether the task can train a backbone that other tasks train too.
    `needs_map`: whether its head reads a map of the backbone.
    `images_per_group`: batch_size and micro_batch_size must be multiples of it.
    `min_images`: fewest images of a micro-batch.
    `gpu_hours_per_epoch`: published cost of an epoch on ResNet-101 (Doersch & Zisserman 2017, section 3.4).
    """

    targets: ClassVar[TargetKind | None] = None
    is_trainable: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True
    is_network: ClassVar[bool] = True
    exports_fc: ClassVar[bool] = False
    supports_multi_task: ClassVar[bool] = False
    needs_map: ClassVar[bool] = False
    images_per_group: ClassVar[int] = 1
    min_images: ClassVar[int] = 1
    gpu_hours_per_epoch: ClassVar[float | None] = None

    @property
    def normalization(self) -> Normalize | None:
        """Normalization of images when later stages use the backbone; None if the options do not determine it."""
        return None

    def forward_passes(self, backbone: BackboneOptions) -> ForwardPasses:
        """The forward passes of one training image, for cost estimates."""
        return ForwardPasses(1, backbone, backbone.img_size)

    def input_sizes(self, backbone: BackboneOptions) -> tuple[BackboneOptions, tuple[int, ...]]:
        """The backbone with the strides of this task, and the sides in pixels of its inputs."""
        passes = self.forward_passes(backbone)
        return passes.backbone, (passes.size,)

    def short_side(self, backbone: BackboneOptions) -> int:
        """Short side in pixels of the images that are read."""
        return int(getattr(self, "resize", backbone.short_side))


class ForeignWeights(TaskOptions):
    """Options of models with weights that others have trained."""

    is_trainable = False
    needs_data = False
    labels: bool | None = Field(
        None,
        description="Whether the weights were trained with labels; null: unknown, so that reports do not rank them.",
    )
    license: str | None = Field(
        None, description="License of the weights, for the cards of the model and its students."
    )
