"""Options of folders of images."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.formats.base import Dataset, LabelType


class FolderDataset(Dataset):
    """Options of folders of images, whose size is not published."""

    # Not in the canonical text: a better estimate must not invalidate the index.
    num_images_hint: int | None = Field(
        None, ge=1, exclude=True, description="Approximate number of images, for `ssltransfer estimate`."
    )

    @property
    def published(self) -> int | None:
        """`num_images_hint`."""
        return self.num_images_hint


class Folder(FolderDataset):
    """Any folder of images, at any depth; unlabeled, or labeled by the first folder level."""

    format: Literal["folder"] = "folder"
    labels: Literal["none", "folder"] = "none"

    @property
    def label_type(self) -> LabelType:
        """One label per image if the folders are classes."""
        return "single" if self.labels == "folder" else "none"


class ImageFolder(FolderDataset):
    """root/[split/]CLASS/...: ImageNet's, Places' and torchvision's ImageFolder layout."""

    format: Literal["imagefolder"] = "imagefolder"
    reference = "torchvision.datasets.ImageFolder"
    split: str | None = None
