"""What all pretext tasks share."""

from __future__ import annotations

from typing import ClassVar

from ssltransfer.config.base import Options


class TaskOptions(Options):
    """What all tasks share. `module` in stages/pretext/ holds the task.

    `shares`: whether its `build` takes a trunk that other tasks train too, as `shared`.
    """

    module: ClassVar[str] = ""
    shares: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True
