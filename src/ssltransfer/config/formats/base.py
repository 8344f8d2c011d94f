"""Options of all data set formats."""

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ssltransfer.config.base import NameFile, Spec, expand_variables

# (JPEG quality, bytes per pixel at 4:4:4) of 58 VOC and COCO photographs at short side 256; interpolated linearly.
_JPEG_BYTES = ((1, 0.04), (50, 0.15), (75, 0.23), (90, 0.39), (95, 0.58), (98, 0.87), (100, 1.37))


class CacheOptions(Spec):
    """Size and encoding of the cached images of a dataset."""

    short_side: int = Field(256, ge=8, description="Short side in pixels; smaller images keep their size.")
    format: Literal["jpeg", "raw"] = "jpeg"
    quality: int = Field(95, ge=1, le=100, description="JPEG quality (4:4:4).")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.format == "raw" and "quality" in self.model_fields_set:
            raise ValueError("raw pixels have no quality; remove `quality`")
        return self

    @property
    def bytes_per_pixel(self) -> float:
        """Expected bytes, exact for raw pixels; used to divide the images into shards and to estimate costs."""
        if self.format == "raw":
            return 3.0
        low, high = next(pair for pair in pairwise(_JPEG_BYTES) if self.quality <= pair[1][0])
        return low[1] + (high[1] - low[1]) * (self.quality - low[0]) / (high[0] - low[0])


class CurateOptions(Spec):
    """Choose images of the dataset of a clustering: balanced over its clusters, without near duplicates."""

    cluster: str = Field(description="Name of the clustering; the images are those of its `data`.")
    num_images: int | None = Field(
        None, ge=1, description="Number of images, in shares as equal as possible of the clusters of every level."
    )
    max_similarity: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="First remove images whose cosine similarity to another of their cluster is larger.",
    )
    choose: Literal["random", "nearest"] = Field(
        "random", description="Which images of a cluster: random ones, or the nearest to its centroid."
    )
    seed: int = 0

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.num_images is None and self.max_similarity is None:
            raise ValueError("give num_images, max_similarity or both")
        return self


class Holdout(Spec):
    """Divide a split into a validation part, drawn at random, and a training part (protocols 4.5)."""

    num_images: int | None = Field(None, ge=1, description="Size of the validation part, drawn by name.")
    fraction: float | None = Field(
        None, gt=0, lt=1, description="Or its share, about: other images do not change an image's part."
    )
    part: Literal["val", "train"] = Field(description="The part that this dataset consists of.")
    seed: int = 0

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.num_images is None) == (self.fraction is None):
            raise ValueError("give num_images or fraction")
        return self

    def estimated_num_images(self, total: int) -> int:
        """Number of images in this part of a split of `total` images; approximate for a fraction."""
        val = min(self.num_images, total) if self.num_images else round((self.fraction or 0) * total)
        return val if self.part == "val" else total - val


LabelType = Literal["none", "single", "multi"]
"""Number of true class labels per image."""

TargetKind = Literal["boxes", "masks", "depth", "motion"]
"""Ground truth other than labels: object boxes, a class per pixel, depth in meters, moving cells."""


class Dataset(Spec):
    """Options of all formats."""

    format: Any
    root: Annotated[str, AfterValidator(expand_variables)] = Field(
        description="Folder of the data set, relative to the working directory; ~ and $VARIABLES are expanded."
    )
    limit: int | None = Field(
        None, ge=1, description="Use only this many images, drawn by a fixed seed in proportion to the classes."
    )
    holdout: Holdout | None = Field(None, description="{num_images, part: val or train}: a part of the split.")
    include: NameFile | None = Field(None, description="A text file with one name per line: use only these images.")
    exclude: NameFile | None = Field(None, description="A text file with one name per line: skip these images.")
    on_corrupt: Literal["skip", "error"] = Field(
        "skip", description="Unreadable images: skip and list them, or stop with an error."
    )
    max_corrupt_fraction: float = Field(
        0.5, ge=0, le=1, description="Stop with an error if more than this fraction of the images is unreadable."
    )
    # Not in the canonical text: the index is the same with and without.
    cache: CacheOptions | None = Field(None, exclude=True, description="Decode once: {short_side, format, quality}.")
    # Set alone: the other options are those of the dataset that was clustered.
    curate: CurateOptions | None = Field(
        None, exclude=True, description="Instead of all other options: {cluster, num_images, max_similarity}."
    )
    reference: ClassVar[str] = ""
    _label_type: ClassVar[LabelType] = "single"
    published_sizes: ClassVar[dict[str, int]] = {}

    @property
    def creates_root(self) -> bool:
        """Whether the images are generated or downloaded if the folder is missing."""
        return False

    @property
    def label_type(self) -> LabelType:
        """Number of true class labels per image."""
        return self._label_type

    @property
    def target(self) -> TargetKind | None:
        """Targets in the index other than labels."""
        kind: TargetKind | None = getattr(self, "targets", None)
        return kind

    @property
    def published(self) -> int | None:
        """Number of images in this split according to its publishers; None if unknown."""
        return self.published_sizes.get(getattr(self, "split", None) or "")

    @property
    def estimated_num_images(self) -> int | None:
        """Number of images before an index exists: the published number or the hint, after holdout and `limit`."""
        published = self.published
        if self.include and self.include.digest:
            published = len(self.include.names())
        if self.holdout and published is not None:
            published = self.holdout.estimated_num_images(published)
        curated = self.curate.num_images if self.curate else None
        known = [number for number in (self.limit, published, curated) if number is not None]
        return min(known, default=None)
