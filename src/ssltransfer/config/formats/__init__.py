"""Options of data set formats, one file per family. A new file is registered automatically."""

from typing import TYPE_CHECKING

from ssltransfer.config.base import one_of, options_in
from ssltransfer.config.formats.base import CacheOptions as CacheOptions
from ssltransfer.config.formats.base import CurateOptions as CurateOptions
from ssltransfer.config.formats.base import Dataset as Dataset
from ssltransfer.config.formats.base import Holdout as Holdout
from ssltransfer.config.formats.base import LabelType as LabelType
from ssltransfer.config.formats.base import TargetKind as TargetKind
from ssltransfer.config.formats.depth_sets import FastDepth as FastDepth
from ssltransfer.config.formats.depth_sets import NyuDepthV2 as NyuDepthV2
from ssltransfer.config.formats.depth_sets import Rgbd as Rgbd
from ssltransfer.config.formats.depth_sets import RgbdDataset as RgbdDataset
from ssltransfer.config.formats.fine_grained import Cars196 as Cars196
from ssltransfer.config.formats.fine_grained import Cub200 as Cub200
from ssltransfer.config.formats.flowers import Flowers102 as Flowers102
from ssltransfer.config.formats.folders import Folder as Folder
from ssltransfer.config.formats.folders import ImageFolder as ImageFolder
from ssltransfer.config.formats.imagenet import ImageNet as ImageNet
from ssltransfer.config.formats.places import Places205 as Places205
from ssltransfer.config.formats.places import Places365 as Places365
from ssltransfer.config.formats.sbd import Sbd as Sbd
from ssltransfer.config.formats.synthetic import Synthetic as Synthetic
from ssltransfer.config.formats.tables import Table as Table
from ssltransfer.config.formats.torchvision_sets import Cifar10 as Cifar10
from ssltransfer.config.formats.torchvision_sets import Cifar100 as Cifar100
from ssltransfer.config.formats.torchvision_sets import Stl10 as Stl10
from ssltransfer.config.formats.torchvision_sets import Torchvision as Torchvision
from ssltransfer.config.formats.videos import MotionOptions as MotionOptions
from ssltransfer.config.formats.videos import Video as Video
from ssltransfer.config.formats.voc import Voc as Voc
from ssltransfer.config.formats.webdataset import WebDataset as WebDataset

FORMATS = options_in(__name__, Dataset)
if TYPE_CHECKING:
    AnyDataset = Dataset
else:
    AnyDataset = one_of(FORMATS)
