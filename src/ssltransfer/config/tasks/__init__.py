"""Pretext tasks: what makes a model without labels, and its options. A file a family."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from ssltransfer.config.base import coerce_name
from ssltransfer.config.tasks.base import TaskOptions
from ssltransfer.config.tasks.colorization import Colorization
from ssltransfer.config.tasks.exemplar import Exemplar
from ssltransfer.config.tasks.fixed import Hog, Imported, RandomNetwork, Snapshot
from ssltransfer.config.tasks.motion import MotionSegmentation
from ssltransfer.config.tasks.multi_task import MultiTask, TaskSpec
from ssltransfer.config.tasks.patches import JigsawKolesnikov, RelativePatchLocation
from ssltransfer.config.tasks.patches import PatchOptions as PatchOptions
from ssltransfer.config.tasks.positions import PatchGrid as PatchGrid
from ssltransfer.config.tasks.positions import RelativePosition
from ssltransfer.config.tasks.puzzles import Jigsaw, JigsawPP
from ssltransfer.config.tasks.puzzles import Tiles as Tiles
from ssltransfer.config.tasks.residual import ExemplarPatches, RelativePositionResidual
from ssltransfer.config.tasks.residual import ResidualHead as ResidualHead
from ssltransfer.config.tasks.rotation import Rotation

TASKS: tuple[type[TaskOptions], ...] = (
    Jigsaw,
    JigsawPP,
    JigsawKolesnikov,
    RelativePosition,
    RelativePatchLocation,
    RelativePositionResidual,
    Rotation,
    Exemplar,
    ExemplarPatches,
    Colorization,
    MotionSegmentation,
    MultiTask,
    RandomNetwork,
    Hog,
    Imported,
    Snapshot,
)
AnyTask = Annotated[
    Jigsaw
    | JigsawPP
    | JigsawKolesnikov
    | RelativePosition
    | RelativePatchLocation
    | RelativePositionResidual
    | Rotation
    | Exemplar
    | ExemplarPatches
    | Colorization
    | MotionSegmentation
    | MultiTask
    | RandomNetwork
    | Hog
    | Imported
    | Snapshot,
    Field(discriminator="name"),
    BeforeValidator(coerce_name),
]

# The tasks of several are any of these, which only now are known.
TaskSpec.model_rebuild()
MultiTask.model_rebuild()
