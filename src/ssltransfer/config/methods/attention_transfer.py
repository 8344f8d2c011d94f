"""Attention transfer."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ssltransfer.config.methods.distillation import LayerDistillation
from ssltransfer.config.tasks import AnyTask, MultiTask


class AttentionTransfer(LayerDistillation):
    """A pretext task's own loss plus the attention maps of a teacher: Noroozi's second distillation baseline."""

    name: Literal["attention-transfer"] = "attention-transfer"
    reference = "Noroozi et al. 2018, section 5 (6 ii); Zagoruyko & Komodakis 2017; protocols 3.2"
    is_self_contained = False
    task: AnyTask = Field(description="Pretext task whose loss is added; any trainable task but multi-task.")
    layers: tuple[str, ...] = Field(("conv3", "conv4", "conv5"), min_length=1, description="Maps of the student.")
    beta: float = Field(
        1000.0, ge=0, description="Twice the weight of each layer, times the number of its spatial locations."
    )

    @field_validator("task")
    @classmethod
    def _trained(cls, task: Any) -> Any:
        if isinstance(task, MultiTask) or not task.is_trainable:
            raise ValueError(f"task {task.name} has no loss of its own; name a trainable task other than multi-task")
        return task

    @model_validator(mode="after")
    def _own_inputs(self) -> Self:
        for key in ("augment", "dropout"):
            if key in self.model_fields_set:
                raise ValueError(f"`{key}` is not used by this method: set the options of its `task`")
        return self
