"""Several tasks on one backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, field_validator

from ssltransfer.config.base import Spec
from ssltransfer.config.tasks.base import TaskOptions

if TYPE_CHECKING:
    from ssltransfer.config.tasks import AnyTask

_LENGTHS = ("steps", "epochs")


class TaskSpec(Spec):
    """One of the tasks; what is left out is the pretext's."""

    task: AnyTask
    data: str | None = Field(None, description="Dataset of its own.")
    val: str | None = Field(None, description="Validation dataset of its own; with data of its own none by default.")
    weight: float | None = Field(
        None, gt=0, description="Turns in proportion to this; default: as many as give all the same compute."
    )
    schedule: dict[str, JsonValue] = Field({}, description="What differs from the pretext's schedule, but its length.")

    @field_validator("schedule")
    @classmethod
    def _no_length(cls, given: dict[str, Any]) -> dict[str, Any]:
        for key in _LENGTHS:
            if key in given:
                raise ValueError(f"{key} belong to the whole training; tell a task's part of them by `weight`")
        return given

    @field_validator("task")
    @classmethod
    def _shares(cls, task: Any) -> Any:
        if not task.supports_multi_task:
            raise ValueError(f"task {task.name} cannot share its backbone with others; train it alone")
        if getattr(task, "stem_stride", None):
            raise ValueError(f"the stem is common to all tasks: set stem_stride of the backbone, not of {task.name}")
        return task


class MultiTask(TaskOptions):
    """Several tasks take turns on one backbone, each with its own head, optimizer and data."""

    name: Literal["multi-task"] = "multi-task"
    module: ClassVar[str] = "multi_task"
    needs_data: ClassVar[bool] = False  # each of the tasks may have its own
    reference: ClassVar[str] = "Doersch & Zisserman 2017; protocols 1.9"
    tasks: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")], TaskSpec] = Field(min_length=1)
    synchronous: bool = Field(
        False, description="All take their gradients at the same weights, side by side where there are enough devices."
    )
    l1_layer_mix: float | None = Field(
        None, ge=0, description="Each head reads its own mix of the units of block3, at this L1 penalty."
    )
    normalization_from: str | None = Field(
        None, description="Task whose normalization the backbone is used with; default the first."
    )

    @field_validator("tasks")
    @classmethod
    def _in_order(cls, tasks: dict[str, TaskSpec]) -> dict[str, TaskSpec]:
        """Of their names, as in the canonical spec: their order decides the result."""
        return dict(sorted(tasks.items()))

    @field_validator("normalization_from")
    @classmethod
    def _known(cls, name: str | None, info: Any) -> str | None:
        if name is not None and name not in info.data.get("tasks", {name}):
            raise ValueError(f"no task is called {name!r}")
        return name

    def task_weights(self, batches: Mapping[str, int]) -> dict[str, float]:
        """Turns of each task, in proportion.

        Args:
            batches: images an update of each.

        Returns:
            As given; where none is given and the cost of every task is known, one over cost and batch, so that all
            get the same compute; else 1.
        """
        costs = {name: one.task.gpu_hours_per_epoch for name, one in self.tasks.items()}
        default = dict.fromkeys(self.tasks, 1.0)
        if not self.synchronous and all(costs.values()):
            default = {name: 1 / (cost * batches[name]) for name, cost in costs.items() if cost}
        return {name: one.weight or default[name] for name, one in self.tasks.items()}
