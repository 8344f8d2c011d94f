"""Options of the distillation methods, in which the student learns features of a teacher, without labels."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.methods.base import MethodOptions
from ssltransfer.config.protocols.base import Pool


class Distillation(MethodOptions):
    """A teacher, which is any model of the configuration, and the compared layers."""

    teacher: str = Field(description="Name of the teacher model.")
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
