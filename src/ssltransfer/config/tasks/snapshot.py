"""Snapshots of a training."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.tasks.base import TaskOptions


class Snapshot(TaskOptions):
    """Backbone of a pretext after a step of its training; an entry is added for each of its `snapshots`."""

    name: Literal["snapshot"] = "snapshot"
    reference = "Doersch & Zisserman 2017, figure 3; protocols 1.9"
    is_trainable = False
    needs_data = False
    source: str = Field(description="Name of the pretext.")
    step: int = Field(ge=1, description="Step of its training.")
