"""Options of PASCAL VOC."""

from typing import ClassVar, Literal

from pydantic import Field

from ssltransfer.config.formats.base import Dataset, LabelType

_VOC_TARGETS = "boxes: from Annotations. masks: from SegmentationClass; the split is a list of ImageSets/Segmentation."


class Voc(Dataset):
    """PASCAL VOC devkit (VOCdevkit/VOC2007): several labels per image, difficult ones marked; boxes or masks."""

    format: Literal["voc"] = "voc"
    reference = "Everingham et al. 2010; protocols of the VOC devkit"
    _label_type: ClassVar[LabelType] = "multi"
    published_sizes = {
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
        """None for masks, which contain the classes."""
        return "none" if self.targets == "masks" else "multi"

    @property
    def published(self) -> int | None:
        """Images in the list of ImageSets; None for a list of your own."""
        return self.published_sizes.get(f"{self.year} {self.split}" + (" masks" if self.targets == "masks" else ""))
