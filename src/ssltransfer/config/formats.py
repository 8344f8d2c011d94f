"""Datasets: which published folder layouts are read, and their options."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ssltransfer.config.base import NameFile, Spec

# JPEG quality, bytes a pixel at 4:4:4: 58 VOC and COCO photographs at short side 256; a line between them.
_JPEG_BYTES = ((1, 0.04), (50, 0.15), (75, 0.23), (90, 0.39), (95, 0.58), (98, 0.87), (100, 1.37))


class CacheOptions(Spec):
    """How the images of a dataset are kept once they were decoded."""

    short_side: int = Field(256, ge=8, description="Short side in pixels; smaller images keep their size.")
    format: Literal["jpeg", "raw"] = "jpeg"
    quality: int = Field(95, ge=1, le=100, description="Of JPEG, 4:4:4.")

    @model_validator(mode="after")
    def _fits(self) -> CacheOptions:
        if self.format == "raw" and "quality" in self.model_fields_set:
            raise ValueError("raw pixels have no quality; leave `quality` out")
        return self

    @property
    def bytes_per_pixel(self) -> float:
        """Exact for raw pixels, usual for JPEG: shards are cut and costs are estimated by it."""
        if self.format == "raw":
            return 3.0
        low, high = next(pair for pair in pairwise(_JPEG_BYTES) if self.quality <= pair[1][0])
        return low[1] + (high[1] - low[1]) * (self.quality - low[0]) / (high[0] - low[0])


class Holdout(Spec):
    """A validation set of one's own: some images drawn from a split, and the rest of it (protocols 4.5)."""

    num_images: int = Field(ge=1, description="How many are validation, drawn by name.")
    part: Literal["val", "train"] = Field(description="Which of the two this dataset is.")
    seed: int = 0


class MotionOptions(Spec):
    """How clips of a video become a image each, with a map of what moves by itself (protocols 1.8)."""

    clip_length: int = Field(10, ge=2, le=100, description="Of a clip; points are followed from its first to its last.")
    clip_stride: int = Field(10, ge=1, description="A clip begins at frame 0 and at every so many after it.")
    size: tuple[Annotated[int, Field(ge=32, le=2048)], Annotated[int, Field(ge=32, le=2048)]] = Field(
        (240, 320), description="Height and width in pixels that frames are brought to, multiples of 8."
    )
    flow: Literal["dis", "farneback"] = Field("dis", description="Dense flow between two frames, of OpenCV.")
    default_label: Literal["background", "foreground"] = Field(
        "background", description="What a cell is that no followed point says anything of."
    )
    foreground_range: tuple[float, float] = Field(
        (0.02, 0.8), description="Least and greatest share of the cells; clips with less or more are left out."
    )
    format: Literal["jpeg", "raw"] = "jpeg"
    quality: int = Field(95, ge=1, le=100, description="Of JPEG, 4:4:4.")

    @model_validator(mode="after")
    def _fits(self) -> MotionOptions:
        if any(side % 8 for side in self.size):
            raise ValueError(f"size {list(self.size)} is not of whole cells; give multiples of 8")
        if not 0 <= self.foreground_range[0] < self.foreground_range[1] <= 1:
            raise ValueError("foreground_range is not a range; give two numbers between 0 and 1, the smaller first")
        if self.format == "raw" and "quality" in self.model_fields_set:
            raise ValueError("raw pixels have no quality; leave `quality` out")
        return self

    @property
    def cache(self) -> CacheOptions:
        """How the images are kept."""
        quality = {"quality": self.quality} if self.format == "jpeg" else {}
        return CacheOptions(short_side=min(self.size), format=self.format, **quality)


LabelType = Literal["none", "single", "multi"]
"""How many true class labels an image of a data set has."""

TargetKind = Literal["boxes", "masks", "depth", "motion"]
"""What a image may come with beside labels: boxes of things, a class a pixel, meters a pixel, what moves."""


class Dataset(Spec):
    """What all formats share."""

    format: Any
    root: str = Field(description="Folder of the data set; relative paths start where the command is run.")
    limit: int | None = Field(
        None, ge=1, description="Take only this many images, drawn by a fixed seed in proportion to the classes."
    )
    holdout: Holdout | None = Field(None, description="{num_images, part: val or train}: a part of the split.")
    include: NameFile | None = Field(None, description="A file of names, a line each: only these images.")
    exclude: NameFile | None = Field(None, description="Likewise: these images are left out.")
    on_corrupt: Literal["skip", "error"] = Field(
        "skip",
        description="What an unreadable image does: it is left out and listed, or it ends the run.",
    )
    max_corrupt_fraction: float = Field(
        0.5, ge=0, le=1, description="More than this share of unreadable images ends the run all the same."
    )
    # No part of the canonical text: the index is the same with and without.
    cache: CacheOptions | None = Field(None, exclude=True, description="Decode once: {short_side, format, quality}.")
    reference: ClassVar[str] = ""
    _label_type: ClassVar[LabelType] = "single"
    published_sizes: ClassVar[dict[str, int]] = {}

    @property
    def label_type(self) -> LabelType:
        """How many true labels a image of this set has."""
        return self._label_type

    @property
    def target(self) -> TargetKind | None:
        """What each image comes with beside labels."""
        return None

    @property
    def published(self) -> int | None:
        """Images in this split by its publishers' own count; None where nobody gives one."""
        return self.published_sizes.get(getattr(self, "split", None) or "")

    @property
    def estimated_num_images(self) -> int | None:
        """Images to reckon with before an index exists: the published (or expected) number, cut by `limit`."""
        published = self.published
        if self.include and self.include.digest:
            published = len(self.include.names())
        if self.holdout and published is not None:
            held = min(self.holdout.num_images, published)
            published = held if self.holdout.part == "val" else published - held
        known = [number for number in (self.limit, published) if number is not None]
        return min(known, default=None)


_NUM_IMAGES_HINT = Field(
    None, ge=1, exclude=True, description="About how many images there are; `ssltransfer estimate` reckons with it."
)


class Folder(Dataset):
    """Any folder of images, nested as you like; unlabelled, or labelled by the first folder level."""

    format: Literal["folder"] = "folder"
    labels: Literal["none", "folder"] = "none"
    # No part of the canonical text: a better estimate must not make the index anew.
    num_images_hint: int | None = _NUM_IMAGES_HINT

    @property
    def label_type(self) -> LabelType:
        """One label a image when the folders are classes."""
        return "single" if self.labels == "folder" else "none"

    @property
    def published(self) -> int | None:
        """What the configuration expects."""
        return self.num_images_hint


class ImageFolder(Dataset):
    """root/[split/]CLASS/...: ImageNet's, Places' and torchvision's ImageFolder layout."""

    format: Literal["imagefolder"] = "imagefolder"
    reference: ClassVar[str] = "torchvision.datasets.ImageFolder"
    split: str | None = None
    num_images_hint: int | None = _NUM_IMAGES_HINT

    @property
    def published(self) -> int | None:
        """What the configuration expects."""
        return self.num_images_hint


class ImageNet(Dataset):
    """ImageNet 2012: train/WNID/, val/WNID/, or a flat val/ with the devkit's ground truth."""

    format: Literal["imagenet"] = "imagenet"
    reference: ClassVar[str] = "Russakovsky et al. 2015; torchvision.datasets.ImageNet"
    published_sizes: ClassVar[dict[str, int]] = {"train": 1_281_167, "val": 50_000}
    split: Literal["train", "val"]


class Torchvision(Dataset):
    """What the self-downloading sets share: fetched and checked by torchvision into `root`."""

    root: str = "data/torchvision"
    download: bool = True


class Cifar10(Torchvision):
    """CIFAR-10, downloaded by torchvision, kept as PNG files."""

    format: Literal["cifar10"] = "cifar10"
    reference: ClassVar[str] = "Krizhevsky 2009; torchvision.datasets.CIFAR10"
    published_sizes: ClassVar[dict[str, int]] = {"train": 50_000, "test": 10_000}
    split: Literal["train", "test"]


class Cifar100(Torchvision):
    """CIFAR-100, downloaded by torchvision, kept as PNG files."""

    format: Literal["cifar100"] = "cifar100"
    reference: ClassVar[str] = "Krizhevsky 2009; torchvision.datasets.CIFAR100"
    published_sizes: ClassVar[dict[str, int]] = {"train": 50_000, "test": 10_000}
    split: Literal["train", "test"]


class Stl10(Torchvision):
    """STL-10 with its unlabelled part, downloaded by torchvision, kept as PNG files."""

    format: Literal["stl10"] = "stl10"
    reference: ClassVar[str] = "Coates et al. 2011; torchvision.datasets.STL10"
    published_sizes: ClassVar[dict[str, int]] = {"train": 5_000, "test": 8_000, "unlabeled": 100_000}
    split: Literal["train", "test", "unlabeled"]

    @property
    def label_type(self) -> LabelType:
        """The part called unlabeled has no labels."""
        return "none" if self.split == "unlabeled" else "single"


class Flowers102(Torchvision):
    """Oxford Flowers-102, downloaded by torchvision."""

    format: Literal["flowers102"] = "flowers102"
    reference: ClassVar[str] = "Nilsback & Zisserman 2008; torchvision.datasets.Flowers102"
    published_sizes: ClassVar[dict[str, int]] = {"train": 1_020, "val": 1_020, "test": 6_149}
    split: Literal["train", "val", "test"]


class Places365(Torchvision):
    """Places365-Standard in 256 px files, downloaded by torchvision."""

    format: Literal["places365"] = "places365"
    reference: ClassVar[str] = "Zhou et al. 2017; torchvision.datasets.Places365"
    published_sizes: ClassVar[dict[str, int]] = {"train": 1_803_460, "val": 36_500}
    split: Literal["train", "val"]


class Places205(Dataset):
    """Places205: images256/ and the lists train_places205.csv, val_places205.csv ("path label")."""

    format: Literal["places205"] = "places205"
    reference: ClassVar[str] = "Zhou et al. 2014"
    published_sizes: ClassVar[dict[str, int]] = {"train": 2_448_873, "val": 20_500}
    split: Literal["train", "val"]


_ZERO_SHOT = "zero-shot: the first or second half of the classes, all images of them (Oh Song et al. 2016)."


class Cub200(Dataset):
    """CUB-200-2011: images/, images.txt, image_class_labels.txt, train_test_split.txt, classes.txt."""

    format: Literal["cub200"] = "cub200"
    reference: ClassVar[str] = "Wah et al. 2011"
    published_sizes: ClassVar[dict[str, int]] = {
        **{"train": 5_994, "test": 5_794, "zero-shot-train": 5_864, "zero-shot-test": 5_924}
    }
    split: Literal["train", "test", "zero-shot-train", "zero-shot-test"] = Field(description=_ZERO_SHOT)


class Cars196(Dataset):
    """Stanford Cars: cars_train/, cars_test/ and devkit/*.mat, or car_ims/ and cars_annos.mat."""

    format: Literal["cars196"] = "cars196"
    reference: ClassVar[str] = "Krause et al. 2013"
    published_sizes: ClassVar[dict[str, int]] = {
        **{"train": 8_144, "test": 8_041, "zero-shot-train": 8_054, "zero-shot-test": 8_131}
    }
    split: Literal["train", "test", "zero-shot-train", "zero-shot-test"] = Field(description=_ZERO_SHOT)


_VOC_TARGETS = "boxes: of Annotations. masks: of SegmentationClass, and the split is a list of ImageSets/Segmentation."


class Voc(Dataset):
    """PASCAL VOC devkit (VOCdevkit/VOC2007): several labels a image, difficult ones marked; boxes or masks."""

    format: Literal["voc"] = "voc"
    reference: ClassVar[str] = "Everingham et al. 2010; protocols of the VOC devkit"
    _label_type: ClassVar[LabelType] = "multi"
    published_sizes: ClassVar[dict[str, int]] = {
        **{"2007 train": 2_501, "2007 val": 2_510, "2007 trainval": 5_011, "2007 test": 4_952},
        **{"2012 train": 5_717, "2012 val": 5_823, "2012 trainval": 11_540, "2012 test": 10_991},
        **{"2007 train masks": 209, "2007 val masks": 213, "2007 trainval masks": 422, "2007 test masks": 210},
        **{"2012 train masks": 1_464, "2012 val masks": 1_449, "2012 trainval masks": 2_913},
    }
    year: Literal["2007", "2012"] = "2007"
    split: str = Field(description="A list of ImageSets: train, val, trainval, test, or a list of your own there.")
    targets: Literal["boxes", "masks"] | None = Field(None, description=_VOC_TARGETS)

    @property
    def label_type(self) -> LabelType:
        """The classes of a set with masks stand in those alone."""
        return "none" if self.targets == "masks" else "multi"

    @property
    def target(self) -> TargetKind | None:
        """Boxes or masks, where they were asked for."""
        return self.targets

    @property
    def published(self) -> int | None:
        """Images in the list of ImageSets; unknown where some of them are left out."""
        return self.published_sizes.get(f"{self.year} {self.split}" + (" masks" if self.targets == "masks" else ""))


class Sbd(Dataset):
    """Semantic Boundaries Dataset: VOC 2011's images with a mask each, classes numbered as VOC's."""

    format: Literal["sbd"] = "sbd"
    reference: ClassVar[str] = "Hariharan et al. 2011; its dataset/{img,cls,train.txt,val.txt}"
    _label_type: ClassVar[LabelType] = "none"
    published_sizes: ClassVar[dict[str, int]] = {"train": 8_498, "val": 2_857}
    split: str = Field(description="train, val, or a list of your own beside them.")
    targets: Literal["masks"] | None = "masks"

    @property
    def target(self) -> TargetKind | None:
        """Masks, unless they are not wanted."""
        return self.targets


class RgbdDataset(Dataset):
    """What the sets of rooms with depth share."""

    _label_type: ClassVar[LabelType] = "none"
    targets: Literal["depth"] | None = Field("depth", description="null: the images alone, which may be cached then.")

    @property
    def target(self) -> TargetKind | None:
        """Depth, unless it was left out."""
        return self.targets


class NyuDepthV2(RgbdDataset):
    """NYU Depth v2: nyu_depth_v2_labeled.mat and splits.mat, unpacked once beside them."""

    format: Literal["nyu-depth-v2"] = "nyu-depth-v2"
    reference: ClassVar[str] = "Silberman et al. 2012"
    published_sizes: ClassVar[dict[str, int]] = {"train": 795, "test": 654}
    split: Literal["train", "test"]


class FastDepth(RgbdDataset):
    """NYU Depth v2 in frames of Ma & Karaman: train/, val/ with .h5 files at any depth, unpacked once beside them."""

    format: Literal["fastdepth"] = "fastdepth"
    reference: ClassVar[str] = "Ma & Karaman 2018; Wofk et al. 2019"
    published_sizes: ClassVar[dict[str, int]] = {"train": 47_584, "val": 654}
    split: Literal["train", "val"]


class Rgbd(RgbdDataset):
    """Lists SPLIT.txt of "image depth" lines; depth in 16-bit PNG files, millimeters (7-Scenes, for example)."""

    format: Literal["rgbd"] = "rgbd"
    split: str = Field(description="A list in `root`, without its ending.")


class Video(Dataset):
    """Videos at any depth, files or folders of frames; the first frame of each clip and what moves in it by itself."""

    format: Literal["video"] = "video"
    reference: ClassVar[str] = "Doersch & Zisserman 2017; Perazzi et al. 2016 (DAVIS); protocols 1.8"
    _label_type: ClassVar[LabelType] = "none"
    split: str | None = Field(None, description="A list of DAVIS's ImageSets/480p: only its clips.")
    # No part of the canonical text: the index holds the videos, whatever is made of them.
    motion: MotionOptions = Field(
        MotionOptions(),
        exclude=True,
        description="{clip_length, clip_stride, size, flow, ...}: how clips are labelled.",
    )
    num_images_hint: int | None = Field(
        None,
        ge=1,
        exclude=True,
        description="About how many clips there will be; `ssltransfer estimate` reckons with it.",
    )

    @property
    def target(self) -> TargetKind | None:
        """What moves."""
        return "motion"


class Synthetic(Dataset):
    """The embedded world: images drawn by a seeded program, no download."""

    format: Literal["synthetic"] = "synthetic"
    reference: ClassVar[str] = "toyworld"
    root: str = "data/synthetic"
    subset: Literal["objects", "scenes", "voc", "rgbd", "clips", "retrieval"]
    split: str
    num_images: int = Field(ge=1, description="How many images (clips: how many clips).")
    size: int = Field(96, ge=32, le=1024, description="Side of a image in pixels.")
    seed: int = 0
    targets: TargetKind | None = Field(None, description="voc: boxes or masks; rgbd: depth.")

    @model_validator(mode="after")
    def _has_targets(self) -> Synthetic:
        there = {"voc": ("boxes", "masks"), "rgbd": ("depth",)}.get(self.subset, ())
        if self.targets and self.targets not in there:
            raise ValueError(
                f"the subset {self.subset} has no {self.targets}; leave `targets` out, or take another set"
            )
        return self

    @property
    def label_type(self) -> LabelType:
        """Classes for objects, scenes and retrieval; several labels for voc; none for depth and clips."""
        if self.targets == "masks":
            return "none"
        return {"voc": "multi", "rgbd": "none", "clips": "none"}.get(self.subset, "single")  # type: ignore[return-value]

    @property
    def target(self) -> TargetKind | None:
        """What was asked for."""
        return self.targets

    @property
    def published(self) -> int | None:
        """As many as are drawn; a clip has 12 frames."""
        return self.num_images * 12 if self.subset == "clips" else self.num_images


FORMATS: tuple[type[Dataset], ...] = (
    Folder,
    ImageFolder,
    ImageNet,
    Cifar10,
    Cifar100,
    Stl10,
    Flowers102,
    Places365,
    Places205,
    Cub200,
    Cars196,
    Voc,
    Sbd,
    NyuDepthV2,
    FastDepth,
    Rgbd,
    Video,
    Synthetic,
)
AnyDataset = Annotated[
    Folder
    | ImageFolder
    | ImageNet
    | Cifar10
    | Cifar100
    | Stl10
    | Flowers102
    | Places365
    | Places205
    | Cub200
    | Cars196
    | Voc
    | Sbd
    | NyuDepthV2
    | FastDepth
    | Rgbd
    | Video
    | Synthetic,
    Field(discriminator="format"),
]
