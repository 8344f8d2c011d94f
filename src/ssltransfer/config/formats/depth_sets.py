"""Options of RGB-D data sets."""

from typing import ClassVar, Literal

from pydantic import Field

from ssltransfer.config.formats.base import Dataset, LabelType


class RgbdDataset(Dataset):
    """Options of all RGB-D data sets."""

    _label_type: ClassVar[LabelType] = "none"
    targets: Literal["depth"] | None = Field("depth", description="null: images without depth, which can be cached.")


class NyuDepthV2(RgbdDataset):
    """NYU Depth v2: nyu_depth_v2_labeled.mat and splits.mat, unpacked once next to them."""

    format: Literal["nyu-depth-v2"] = "nyu-depth-v2"
    reference = "Silberman et al. 2012"
    published_sizes = {"train": 795, "test": 654}
    split: Literal["train", "test"]


class FastDepth(RgbdDataset):
    """NYU Depth v2 in frames of Ma & Karaman: train/, val/ with .h5 files at any depth, unpacked once next to them."""

    format: Literal["fastdepth"] = "fastdepth"
    reference = "Ma & Karaman 2018; Wofk et al. 2019"
    published_sizes = {"train": 47_584, "val": 654}
    split: Literal["train", "val"]


class Rgbd(RgbdDataset):
    """Lists SPLIT.txt of "image depth" lines; depth in 16-bit PNG files, millimeters (7-Scenes, for example)."""

    format: Literal["rgbd"] = "rgbd"
    split: str = Field(description="A list in `root`, without its extension.")
