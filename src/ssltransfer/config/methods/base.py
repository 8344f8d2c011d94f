"""Options of all student methods."""

from typing import ClassVar, Literal

from pydantic import Field

from ssltransfer.config.base import Options


class MethodOptions(Options):
    """Options of a student method; the class of the same file name in tasks/ or tasks/distillation/ implements them.

    `has_momentum_encoder`: whether a slow copy of the student sees every view once more.
    `uses_ground_truth`: whether the method learns the true labels of the images.
    `is_self_contained`: whether the method trains the whole backbone, on views as `augment` defines. Otherwise it
        trains the convolutions alone, on the inputs of a pretext task.
    """

    has_momentum_encoder: ClassVar[bool] = False
    uses_ground_truth: ClassVar[bool] = False
    is_self_contained: ClassVar[bool] = True
    augment: Literal["warp-crop", "random-resized-crop", "crop", "none"] = Field(
        "warp-crop", description="warp-crop: 256x256 warp, random crop, flip (CaffeNet's recipe); none: center crop."
    )
    dropout: float = Field(0.5, ge=0, lt=1)

    @property
    def further(self) -> tuple[str, ...]:
        """Names of the models that teach beside `teacher`."""
        return ()
