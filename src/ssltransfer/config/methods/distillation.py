"""Options of the distillation methods, in which the student learns features of a teacher, without labels."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.methods.base import MethodOptions
from ssltransfer.config.protocols.base import Pool


class Distillation(MethodOptions):
    """A teacher, which is any model of the configuration, and the compared layers."""

    teacher: str = Field(description="Name of the teacher model, or of features with a `file`.")
    teacher_layer: str | None = Field(None, description="Layer of the teacher; default: the last.")
    teacher_pool: Pool | None = Field(None, description="Pooling of the teacher's layer if it is a map.")
    layer: str | None = Field(None, description="Layer of the student; default: the last. Maps are averaged.")
    precompute_teacher: bool = Field(
        False, description="Read cached teacher features of each whole image instead of running the teacher on views."
    )
    augment: Literal["warp-crop", "random-resized-crop", "crop", "none"] = Field(
        "random-resized-crop", description="random-resized-crop: a random resized crop and flip (CompRess)."
    )
    dropout: float = Field(0.0, ge=0, lt=1)


class ContrastWithOthers(Distillation):
    """Options of the methods that compare an image with many others of the dataset.

    `others_key`: name of the option with their number. `max_others`: its value in the paper, for 1.28 million images.
    """

    others_key: ClassVar[str]
    max_others: ClassVar[int]
    exclude_self: bool = Field(
        True, description="Never compare an image with past features of itself; false: as the released code."
    )

    @property
    def stated_others(self) -> int | None:
        """The number of others in the configuration, if any."""
        number: int | None = getattr(self, self.others_key)
        return number

    def num_others(self, num_images: int) -> int:
        """The number of others: as stated, or a tenth of the images, between 256 (or half of them) and the paper's."""
        default = min(self.max_others, max(num_images // 10, min(256, num_images // 2), 2))
        return self.stated_others or default

    def refusal(self, num_images: int) -> str | None:
        """Why the stated number does not suit a dataset of `num_images`; None if it does."""
        if self.stated_others is None or self.stated_others < num_images:
            return None
        return (
            f"{self.others_key}: {self.stated_others} features of {num_images} images include each image more than "
            "once; use a fraction of the images, or remove the key."
        )


class LayerDistillation(Distillation):
    """Options of the methods that compare several layers with those of a teacher."""

    layers: tuple[str, ...] = Field(("conv4", "conv5"), min_length=1, description="Layers of the student.")
    teacher_layers: tuple[str, ...] | None = Field(
        None, description="One teacher layer for each; default: the same names."
    )

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if self.teacher_layers and len(self.teacher_layers) != len(self.layers):
            raise ValueError(
                f"{len(self.layers)} layers of the student and {len(self.teacher_layers)} of the teacher: name a "
                "teacher's layer for each"
            )
        if self.precompute_teacher:
            raise ValueError("maps of several layers cannot be precomputed; remove `precompute_teacher`")
        for key in ("layer", "teacher_layer", "teacher_pool"):
            if getattr(self, key) is not None:
                raise ValueError(f"`{key}` is not used by this method; use `layers` and `teacher_layers`")
        return self
