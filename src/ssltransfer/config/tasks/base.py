"""What all pretext tasks share."""

from __future__ import annotations

from typing import ClassVar

from ssltransfer.config.base import Options
from ssltransfer.config.formats import TargetKind


class TaskOptions(Options):
    """What all tasks share. `module` in tasks/pretext/ holds the task.

    `targets`: what each image must come with.
    `is_trainable`: whether it is trained by gradient descent.
    `is_network`: whether its model is a neural network.
    `exports_fc`: whether its model keeps the fully-connected layers of the backbone.
    `supports_multi_task`: whether it can train a backbone that other tasks train too.
    `images_per_group`: the batch size and the micro-batch size must be multiples of it.
    `min_images`: fewest images of a micro-batch.
    `gpu_hours_per_epoch`: published cost of an epoch of its own data on ResNet-101 (Doersch & Zisserman 2017, 3.4).
    """

    module: ClassVar[str] = ""
    supports_multi_task: ClassVar[bool] = False
    is_network: ClassVar[bool] = True
    exports_fc: ClassVar[bool] = False
    images_per_group: ClassVar[int] = 1
    min_images: ClassVar[int] = 1
    gpu_hours_per_epoch: ClassVar[float | None] = None
    targets: ClassVar[TargetKind | None] = None
    is_trainable: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True
