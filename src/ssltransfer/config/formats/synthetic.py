"""Options of the synthetic data set."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.formats.base import Dataset, LabelType, TargetKind

SPLITS = {"voc": ("trainval", "test"), "retrieval": ("train", "test")}  # the other subsets have any split


class Synthetic(Dataset):
    """Images drawn by a seeded program (toyworld); nothing is downloaded."""

    format: Literal["synthetic"] = "synthetic"
    reference = "toyworld"
    root: str = "data/synthetic"
    subset: Literal["objects", "scenes", "voc", "rgbd", "clips", "retrieval"]
    split: str = Field(pattern=r"^[^./][^/]*$", description="voc: trainval or test; retrieval: train or test; or any.")
    num_images: int = Field(ge=1, description="Number of images (clips: number of clips).")
    size: int = Field(96, ge=32, le=1024, description="Side of an image in pixels.")
    seed: int = Field(0, ge=0)
    targets: TargetKind | None = Field(None, description="voc: boxes or masks; rgbd: depth.")

    @model_validator(mode="after")
    def _fits_subset(self) -> Self:
        splits = SPLITS.get(self.subset, (self.split,))
        if self.split not in splits:
            raise ValueError(f"the subset {self.subset} has no split {self.split!r}; use {' or '.join(splits)}")
        there = {"voc": ("boxes", "masks"), "rgbd": ("depth",)}.get(self.subset, ())
        if self.targets and self.targets not in there:
            raise ValueError(
                f"the subset {self.subset} has no {self.targets}; remove `targets`, or name another subset"
            )
        return self

    @property
    def creates_root(self) -> bool:
        """Images are generated."""
        return True

    @property
    def label_type(self) -> LabelType:
        """One label for objects, scenes and retrieval, several for voc, none for the others."""
        if self.targets == "masks":
            return "none"
        return {"voc": "multi", "rgbd": "none", "clips": "none"}.get(self.subset, "single")  # type: ignore[return-value]

    @property
    def published(self) -> int | None:
        """The number of images drawn; a clip has 12 frames."""
        return self.num_images * 12 if self.subset == "clips" else self.num_images
