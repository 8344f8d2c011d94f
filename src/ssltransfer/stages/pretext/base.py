"""What all pretext tasks give: a trunk, and the rule by which its pictures are normalised afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssltransfer.models.normalise import Normalise
from ssltransfer.models.trunk import Trunk
from ssltransfer.training.members import Member
from ssltransfer.training.task import Task


class PretextTask(Task):
    """A task with a trunk that is worth keeping.

    Attributes:
        trunk: what is exported.
        rule: how pictures are normalised when the trunk is used afterwards.
    """

    trunk: Trunk
    rule: Normalise


@dataclass(frozen=True)
class Trainable:
    """What a pretext trains: a task, or several.

    Attributes:
        trunk: what all members train, and what is exported.
        rule: how pictures are normalised when the trunk is used afterwards.
        guess: loss of a guess; of several tasks the mean over the steps.
        content: what the manifest says of it beyond the weights, once it is trained.
    """

    members: Sequence[Member]
    trunk: Trunk
    rule: Normalise
    guess: float
    content: Callable[[], dict[str, Any]] = dict


@dataclass(frozen=True)
class Made:
    """A model that was not trained by gradient.

    Attributes:
        content: what the manifest says of it beyond the weights.
    """

    trunk: Trunk
    rule: Normalise
    content: dict[str, Any] = field(default_factory=dict)
