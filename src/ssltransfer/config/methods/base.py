"""What all student methods share."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ssltransfer.config.base import Options


class MethodOptions(Options):
    """What all methods share. `module` in stages/student/ holds the method.

    `from_labels`: whether the true labels of the images are learned.
    `whole`: whether the whole backbone learns, on views as `augment` says; else its convolutions do, on a task's inputs.
    """

    module: ClassVar[str] = ""
    from_labels: ClassVar[bool] = False
    whole: ClassVar[bool] = True
    augment: Literal["warp-crop", "random-resized-crop", "crop", "none"] = Field(
        "warp-crop", description="warp-crop: 256x256 warp, random crop, mirror (CaffeNet's recipe); none: center."
    )
    dropout: float = Field(0.5, ge=0, lt=1)
