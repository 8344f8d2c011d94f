"""Whether the files and folders that a configuration names are ready. Reading this module does not import torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ssltransfer.artifacts.outdated import is_current
from ssltransfer.config import Config
from ssltransfer.config.base import InputFile, NameFile
from ssltransfer.config.tasks import ForeignWeights, Pretrained
from ssltransfer.errors import UserError


def input_problems(config: Config) -> Iterator[str]:
    """A sentence for each input that some job will miss or refuse: data folders, lists, proposals and weights.

    Folders of indexed datasets and weights of imported models are not checked again.
    """
    for name, dataset in config.datasets.items():
        where = f"datasets.{name}"
        yield from _missing_files(dataset, where)
        indexed = is_current(f"{config.results}/index/{name}.parquet", dataset)
        if not indexed and not dataset.creates_root and not Path(dataset.root).expanduser().is_dir():
            yield f"{where}.root: {dataset.root}: no such folder; check the path."
    for name, pretext in config.pretexts.items():
        missing = list(_missing_files(pretext, f"pretexts.{name}"))
        yield from missing
        made = is_current(f"{config.results}/pretext/{name}/manifest.json", pretext)
        if isinstance(pretext.task, ForeignWeights) and not missing and not made:
            # These modules import torch.
            if isinstance(pretext.task, Pretrained):
                from ssltransfer.tasks.pretext.pretrained import check_pretrained as check
            else:
                from ssltransfer.tasks.pretext.imported import check_weights as check
            try:
                check(pretext)
            except UserError as error:
                yield f"pretexts.{name}.task: {error}"
    for name, evaluation in config.evaluations.items():
        yield from _missing_files(evaluation, f"evaluations.{name}")


def _missing_files(value: Any, where: str) -> Iterator[str]:
    """A sentence for each input file inside a spec that cannot be read."""
    if isinstance(value, NameFile):
        try:
            value.names()
        except UserError as error:
            yield f"{where}: {error}"
    elif isinstance(value, InputFile):
        if not value.digest:
            yield f"{where}: {value.path}: no such file, or not readable; check the path."
    elif isinstance(value, BaseModel):
        for key in type(value).model_fields:
            yield from _missing_files(getattr(value, key), f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _missing_files(entry, where)
