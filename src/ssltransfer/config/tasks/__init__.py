"""Options of the pretext tasks, one file per task. A new file is registered automatically."""

from typing import TYPE_CHECKING

from ssltransfer.config.base import one_of, options_in
from ssltransfer.config.tasks.base import ForeignWeights as ForeignWeights
from ssltransfer.config.tasks.base import TaskOptions as TaskOptions
from ssltransfer.config.tasks.colorization import Colorization as Colorization
from ssltransfer.config.tasks.exemplar import Exemplar as Exemplar
from ssltransfer.config.tasks.exemplar_patches import ExemplarPatches as ExemplarPatches
from ssltransfer.config.tasks.hog import Hog as Hog
from ssltransfer.config.tasks.imported import Imported as Imported
from ssltransfer.config.tasks.jigsaw import Jigsaw as Jigsaw
from ssltransfer.config.tasks.jigsaw import Tiles as Tiles
from ssltransfer.config.tasks.jigsaw_kolesnikov import JigsawKolesnikov as JigsawKolesnikov
from ssltransfer.config.tasks.jigsaw_kolesnikov import PatchOptions as PatchOptions
from ssltransfer.config.tasks.jigsawpp import JigsawPP as JigsawPP
from ssltransfer.config.tasks.motion_segmentation import MotionSegmentation as MotionSegmentation
from ssltransfer.config.tasks.multi_task import MultiTask as MultiTask
from ssltransfer.config.tasks.multi_task import TaskSpec as TaskSpec
from ssltransfer.config.tasks.pretrained import Pretrained as Pretrained
from ssltransfer.config.tasks.random_network import RandomNetwork as RandomNetwork
from ssltransfer.config.tasks.relative_patch_location import RelativePatchLocation as RelativePatchLocation
from ssltransfer.config.tasks.relative_position import PatchGrid as PatchGrid
from ssltransfer.config.tasks.relative_position import RelativePosition as RelativePosition
from ssltransfer.config.tasks.relative_position_residual import RelativePositionResidual as RelativePositionResidual
from ssltransfer.config.tasks.relative_position_residual import ResidualHead as ResidualHead
from ssltransfer.config.tasks.rotation import Rotation as Rotation
from ssltransfer.config.tasks.snapshot import Snapshot as Snapshot

TASKS = options_in(__name__, TaskOptions)
if TYPE_CHECKING:
    AnyTask = TaskOptions
else:
    AnyTask = one_of(TASKS)

# The tasks of a multi-task pretext are any of these.
TaskSpec.model_rebuild()
MultiTask.model_rebuild()
