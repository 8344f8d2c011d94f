"""Methods that learn what a layer of a teacher says of the images, without labels."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ssltransfer.config.methods.base import MethodOptions
from ssltransfer.config.protocols.base import Pool
from ssltransfer.config.tasks import AnyTask, MultiTask


class Distillation(MethodOptions):
    """What they share: a teacher, any model of the configuration."""

    teacher: str = Field(description="Name of the model that is learned from.")
    teacher_layer: str | None = Field(None, description="Of the teacher; default its last.")
    teacher_pool: Pool | None = Field(None, description="Pooling of that layer where it is a map.")
    layer: str | None = Field(None, description="Of the student; default its last. Maps are averaged.")
    precompute_teacher: bool = Field(
        False, description="Read the teacher's features of each whole image, instead of asking it about each view."
    )
    augment: Literal["warp-crop", "random-resized-crop", "crop", "none"] = Field(
        "random-resized-crop", description="random-resized-crop: a random box, mirrored half the time (CompRess)."
    )
    dropout: float = Field(0.0, ge=0, lt=1)


class Compress(Distillation):
    """What both forms of CompRess share."""

    queue_size: int = Field(128_000, ge=2, description="Past features that each image is compared with.")
    temperature: float = Field(0.04, gt=0, description="Of both softmaxes (0.07 for a SwAV teacher).")


class Compress1q(Compress):
    """CompRess-1q: the student's similarities to the teacher's past features become the teacher's own."""

    name: Literal["compress-1q"] = "compress-1q"
    module: ClassVar[str] = "compress"
    reference: ClassVar[str] = "Abbasi Koohpayegani et al. 2020, section 3; protocols 3.3"


class Compress2q(Compress):
    """CompRess-2q: a queue each; the student is compared with what its own slow copy said of the same images."""

    name: Literal["compress-2q"] = "compress-2q"
    module: ClassVar[str] = "compress"
    reference: ClassVar[str] = "Abbasi Koohpayegani et al. 2020, section 3; protocols 3.3"
    momentum: float = Field(0.999, ge=0, lt=1, description="Of the slow copy (0: a queue of the student's own).")
    projection_dim: int | None = Field(
        None, ge=1, description="Width of a linear layer behind the student (R50x4: 8192)."
    )


class Regression(Distillation):
    """Regression of the teacher's features; `bn` standardizes both sides by the batch first (Reg-BN)."""

    name: Literal["regression"] = "regression"
    module: ClassVar[str] = "regression"
    reference: ClassVar[str] = "Abbasi Koohpayegani et al. 2020, section 4; protocols 3.4"
    bn: bool = Field(False, description="Batch normalization without parameters on both sides: Reg-BN.")


class LayerDistillation(Distillation):
    """What methods share that learn from several layers of a live teacher."""

    layers: tuple[str, ...] = Field(("conv4", "conv5"), min_length=1, description="Of the student.")
    teacher_layers: tuple[str, ...] | None = Field(None, description="One for each of those; default the same names.")

    @model_validator(mode="after")
    def _paired(self) -> LayerDistillation:
        if self.teacher_layers and len(self.teacher_layers) != len(self.layers):
            raise ValueError(
                f"{len(self.layers)} layers of the student and {len(self.teacher_layers)} of the teacher: name a "
                "teacher's layer for each"
            )
        if self.precompute_teacher:
            raise ValueError("the maps of several layers are not kept in a store; leave `precompute_teacher` out")
        for key in ("layer", "teacher_layer", "teacher_pool"):
            if getattr(self, key) is not None:
                raise ValueError(f"`{key}` says nothing here; name layers in `layers` and `teacher_layers`")
        return self


class LayerRegression(LayerDistillation):
    """Regression of a teacher's maps, layer by layer: Noroozi's first distillation baseline, or hints (FitNets)."""

    name: Literal["layer-regression"] = "layer-regression"
    module: ClassVar[str] = "layer_regression"
    reference: ClassVar[str] = "Noroozi et al. 2018, section 5 (6 i); Romero et al. 2015; protocols 3.2"


class AttentionTransfer(LayerDistillation):
    """A pretext task's own loss, and attention where the teacher's lies: Noroozi's second distillation baseline."""

    name: Literal["attention-transfer"] = "attention-transfer"
    module: ClassVar[str] = "attention_transfer"
    reference: ClassVar[str] = "Noroozi et al. 2018, section 5 (6 ii); Zagoruyko & Komodakis 2017; protocols 3.2"
    is_self_contained: ClassVar[bool] = False
    task: AnyTask = Field(description="Whose loss the student learns beside; any that is trained by itself.")
    layers: tuple[str, ...] = Field(("conv3", "conv4", "conv5"), min_length=1, description="Of the student: maps.")
    beta: float = Field(1000.0, ge=0, description="Twice the weight of each layer, times the places of its map.")

    @field_validator("task")
    @classmethod
    def _trained(cls, task: Any) -> Any:
        if isinstance(task, MultiTask) or not task.is_trainable:
            raise ValueError(f"task {task.name} has no loss of its own; name one that is trained by itself")
        return task

    @model_validator(mode="after")
    def _own_inputs(self) -> AttentionTransfer:
        for key in ("augment", "dropout"):
            if key in self.model_fields_set:
                raise ValueError(
                    f"`{key}` says nothing here: the task makes its own inputs and head; set options of it"
                )
        return self


class Crd(Distillation):
    """CRD without labels: tell the teacher's feature of the same image from those of others (contrastive)."""

    name: Literal["crd"] = "crd"
    module: ClassVar[str] = "crd"
    reference: ClassVar[str] = "Tian et al. 2020; Abbasi Koohpayegani et al. 2020, section 4; protocols 3.4"
    embed_dim: int = Field(128, ge=1, description="Of the space in which both are compared.")
    num_negatives: int = Field(16_384, ge=1, description="Other images, drawn at random for each.")
    temperature: float = Field(0.07, gt=0)
    momentum: float = Field(0.5, ge=0, lt=1, description="Of the memories of what was said of each image.")
