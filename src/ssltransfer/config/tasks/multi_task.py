"""Several tasks on one backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator

from ssltransfer.config.base import Spec
from ssltransfer.config.tasks.base import TaskOptions

if TYPE_CHECKING:
    from ssltransfer.config.tasks import AnyTask


class TaskSpec(Spec):
    """One of the tasks; missing keys default to those of the pretext."""

    task: AnyTask
    data: str | None = Field(None, description="Dataset of this task.")
    val: str | None = Field(None, description="Validation dataset of this task; none by default if `data` is set.")
    weight: float | None = Field(
        None, gt=0, description="Relative number of steps; default: the same compute for all tasks."
    )
    schedule: dict[str, JsonValue] = Field({}, description="Differences from the pretext's schedule; not its length.")

    @field_validator("schedule")
    @classmethod
    def _no_length(cls, given: dict[str, Any]) -> dict[str, Any]:
        for key in ("steps", "epochs"):
            if key in given:
                raise ValueError(f"{key} belong to the whole training; set the part of a task by `weight`")
        return given

    @field_validator("task")
    @classmethod
    def _supported(cls, task: Any) -> Any:
        if not task.supports_multi_task:
            raise ValueError(f"task {task.name} cannot share its backbone with others; train it alone")
        if getattr(task, "stem_stride", None):
            raise ValueError(f"the stem is common to all tasks: set stem_stride of the backbone, not of {task.name}")
        return task


class MultiTask(TaskOptions):
    """Several tasks train one backbone alternately, each with its own head, optimizer and data."""

    name: Literal["multi-task"] = "multi-task"
    needs_data = False  # each of the tasks may have its own
    reference = "Doersch & Zisserman 2017; protocols 1.9"
    tasks: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")], TaskSpec] = Field(min_length=1)
    synchronous: bool = Field(
        False, description="Compute the gradients of all tasks at the same weights, in parallel on enough devices."
    )
    l1_layer_mix: float | None = Field(
        None, ge=0, description="Each head reads its own mix of the units of block3, with this L1 penalty."
    )
    normalization_from: str | None = Field(
        None, description="Task whose normalization later stages use; default the first."
    )

    @field_validator("tasks")
    @classmethod
    def _sorted(cls, tasks: dict[str, TaskSpec]) -> dict[str, TaskSpec]:
        """By name, as in the canonical spec: the order affects the result."""
        return dict(sorted(tasks.items()))

    @field_validator("normalization_from")
    @classmethod
    def _known(cls, name: str | None, info: Any) -> str | None:
        if name is not None and name not in info.data.get("tasks", {name}):
            raise ValueError(f"no task is called {name!r}")
        return name

    def task_weights(self, batch_sizes: Mapping[str, int]) -> dict[str, float]:
        """Relative number of steps of each task.

        Args:
            batch_sizes: images per update of each task.

        Returns:
            `weight` where it is set. The default is 1 / (cost x batch size), which gives all tasks the same compute, or
            1 if the tasks are synchronous or the cost of any task is unknown.
        """
        costs = {name: one.task.gpu_hours_per_epoch for name, one in self.tasks.items()}
        default = dict.fromkeys(self.tasks, 1.0)
        if not self.synchronous and all(costs.values()):
            default = {name: 1 / (cost * batch_sizes[name]) for name, cost in costs.items() if cost}
        return {name: one.weight or default[name] for name, one in self.tasks.items()}
