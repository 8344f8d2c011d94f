"""Several tasks on one backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, field_validator

from ssltransfer.config.base import Spec
from ssltransfer.config.tasks.base import TaskOptions

if TYPE_CHECKING:
    from ssltransfer.config.tasks import AnyTask

# GPU-hours an epoch on ResNet-101 (Doersch & Zisserman 2017, section 3.4): how costly a image is.
COSTS: Mapping[str, float] = {
    "relative-position": 350.0,
    "relative-position-residual": 350.0,
    "colorization": 90.0,
    "exemplar-patches": 60.0,
    "motion-segmentation": 400.0,
}
_LENGTHS = ("steps", "epochs")


class Member(Spec):
    """One of the tasks; what is left out is the pretext's."""

    task: AnyTask
    data: str | None = Field(None, description="Dataset of its own.")
    val: str | None = Field(None, description="Validation dataset of its own; with data of its own none by default.")
    share: float | None = Field(
        None, gt=0, description="Turns in proportion to this; default: as many as give all the same compute."
    )
    schedule: dict[str, JsonValue] = Field({}, description="What differs from the pretext's schedule, but its length.")

    @field_validator("schedule")
    @classmethod
    def _no_length(cls, given: dict[str, Any]) -> dict[str, Any]:
        for key in _LENGTHS:
            if key in given:
                raise ValueError(f"{key} belong to the whole training; tell a task's part of them by `share`")
        return given

    @field_validator("task")
    @classmethod
    def _shares(cls, task: Any) -> Any:
        if not task.shares:
            raise ValueError(f"task {task.name} cannot share its backbone with others; train it alone")
        if getattr(task, "stem_stride", None):
            raise ValueError(f"the stem is common to all tasks: set stem_stride of the backbone, not of {task.name}")
        return task


class Several(TaskOptions):
    """Several tasks take turns on one backbone, each with its own head, optimizer and data."""

    name: Literal["several"] = "several"
    module: ClassVar[str] = "multi_task"
    needs_data: ClassVar[bool] = False  # each of the tasks may have its own
    source: ClassVar[str] = "Doersch & Zisserman 2017; protocols 1.9"
    tasks: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")], Member] = Field(min_length=1)
    at_once: bool = Field(
        False, description="All take their gradients at the same weights, side by side where there are enough devices."
    )
    lasso: float | None = Field(
        None, ge=0, description="Each head reads its own mix of the units of block3, at this L1 penalty."
    )
    rule_of: str | None = Field(
        None, description="Task whose normalization the backbone is used with; default the first."
    )

    @field_validator("tasks")
    @classmethod
    def _in_order(cls, tasks: dict[str, Member]) -> dict[str, Member]:
        """Of their names, as in the canonical spec: their order decides the result."""
        return dict(sorted(tasks.items()))

    @field_validator("rule_of")
    @classmethod
    def _known(cls, name: str | None, info: Any) -> str | None:
        if name is not None and name not in info.data.get("tasks", {name}):
            raise ValueError(f"no task is called {name!r}")
        return name

    def shares_of(self, batches: Mapping[str, int]) -> dict[str, float]:
        """Turns of each task, in proportion.

        Args:
            batches: images an update of each.

        Returns:
            As given; where none is given and the cost of every task is known, one over cost and batch, so that all
            get the same compute; else 1.
        """
        costs = [COSTS.get(member.task.name) for member in self.tasks.values()]
        if self.at_once or any(cost is None for cost in costs):
            default = dict.fromkeys(self.tasks, 1.0)
        else:
            default = {name: 1 / (COSTS[one.task.name] * batches[name]) for name, one in self.tasks.items()}
        return {name: one.share or default[name] for name, one in self.tasks.items()}
