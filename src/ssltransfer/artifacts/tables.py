"""Reading of parquet artifacts, with one-sentence errors."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ssltransfer.artifacts.files import ArtifactError


def read_table(path: Path, what: str, stage: str) -> tuple[pa.Table, dict[str, Any]]:
    """Read the table of a parquet file and its metadata under the key "ssltransfer".

    Messages say what was expected ("index of images") and which stage writes it.

    Raises:
        ArtifactError: it is missing, damaged (pages have checksums), or another kind of file.
    """
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        about = json.loads(table.schema.metadata[b"ssltransfer"])
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; run the {stage} stage.") from None
    except PermissionError:
        raise ArtifactError(f"{path}: cannot be read; check its permissions.") from None
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        raise ArtifactError(
            f"{path}: damaged, or not a valid {what}; remove it and run the {stage} stage again."
        ) from None
    return table, about
