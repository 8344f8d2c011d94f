"""Options of WebDataset's tar files."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.formats.tables import LabeledByColumns


class WebDataset(LabeledByColumns):
    """WebDataset: tar files in which the files of an image share their name: 0001.jpg, 0001.cls, 0001.json."""

    format: Literal["webdataset"] = "webdataset"
    reference = "Aizman et al. 2019, webdataset"
    shards: str = Field("*.tar", pattern=r"^[^/]", description="Glob pattern of the tar files below root: train-*.tar.")
    image: str | None = Field(None, description="Suffix of the images, such as jpg. Default: an image's suffix.")
