"""What all pretext tasks share."""

from __future__ import annotations

from typing import ClassVar

from ssltransfer.config.base import Options
from ssltransfer.config.formats import TargetKind


class TaskOptions(Options):
    """What all tasks share. `module` in stages/pretext/ holds the task.

    `targets`: what each image must come with.
    `shares`: whether its `build` takes a backbone that other tasks train too, as `shared`.
    """

    module: ClassVar[str] = ""
    shares: ClassVar[bool] = False
    targets: ClassVar[TargetKind | None] = None
    trains: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True
