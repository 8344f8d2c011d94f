"""Options of images whose labels are in a table."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.base import InputFile
from ssltransfer.config.formats.base import LabelType
from ssltransfer.config.formats.folders import FolderDataset


class LabeledByColumns(FolderDataset):
    """Options of images with one label, several labels or none, in named columns."""

    label: str | None = Field(None, description="Column of the class. Default: no labels.")
    labels: str | tuple[str, ...] | None = Field(
        None,
        description="Several labels per image: a column of lists, or of texts divided by `separator`; or a list of "
        "columns, one per class, with 1, 0 or an empty cell (unknown).",
    )
    separator: str = Field("|", min_length=1, description="Between the labels of a text in the column `labels`.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.label is not None and self.labels is not None:
            raise ValueError("give `label` (one class per image) or `labels` (several), not both")
        if "separator" in self.model_fields_set and not isinstance(self.labels, str):
            raise ValueError("`separator` divides the texts of one column; name it in `labels`")
        if self.labels == ():
            raise ValueError("`labels` names no column")
        return self

    @property
    def label_type(self) -> LabelType:
        """By the option that names the labels."""
        return "multi" if self.labels is not None else "none" if self.label is None else "single"


class Table(LabeledByColumns):
    """CSV, TSV, Parquet or JSON Lines with a column of paths, labels and a split; Hugging Face's metadata.csv."""

    format: Literal["table"] = "table"
    reference = "Hugging Face datasets, imagefolder"
    table: InputFile = Field(description="The file: .csv, .tsv, .parquet or .jsonl. `root` is its folder by default.")
    path: str | None = Field(
        None, description="Column of the paths. Default: path, file_name, filename, file or image, whichever exists."
    )
    split: str | None = Field(None, description="Use only the rows with this value in the column `split_column`.")
    split_column: str = "split"

    @model_validator(mode="before")
    @classmethod
    def _beside_the_table(cls, value: Any) -> Any:
        table = value.get("table") if isinstance(value, dict) else None
        path = table.get("path") if isinstance(table, dict) else getattr(table, "path", table)
        if isinstance(path, str | Path) and value.get("root") is None:
            return value | {"root": str(Path(path).parent)}
        return value
