"""Options of the Semantic Boundaries Dataset."""

from typing import ClassVar, Literal

from pydantic import Field

from ssltransfer.config.formats.base import Dataset, LabelType


class Sbd(Dataset):
    """Semantic Boundaries Dataset: images of VOC 2011 with one mask per image, classes numbered as VOC's."""

    format: Literal["sbd"] = "sbd"
    reference = "Hariharan et al. 2011; its dataset/{img,cls,train.txt,val.txt}"
    _label_type: ClassVar[LabelType] = "none"
    published_sizes = {"train": 8_498, "val": 2_857}
    split: str = Field(description="train, val, or a list of your own next to them.")
    targets: Literal["masks"] | None = "masks"
