"""The index of a dataset: one parquet row a picture, in a fixed order, and what was left out and why."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssltransfer.artefacts.files import ArtefactError, digest_of_text, replacing, write_text


@dataclass(frozen=True)
class Index:
    """Pictures of a dataset.

    Attributes:
        root: folder that `paths` start from.
        paths: relative path of each picture; its position is the sample id.
        labels: int32 (N,), class of each picture, -1 where there is none.
        classes: names of the classes.
        presence: int8 (N, C) for sets with several labels a picture: 1 present, 0 difficult, -1 absent.
        sizes: int32 (N, 2), width and height in pixels, upright.
        digests: content digest of each file; equal pictures have equal ones.
        left_out: relative path -> reason.
        spec: the dataset's spec as it was declared.
    """

    root: Path
    paths: list[str]
    labels: np.ndarray
    classes: list[str]
    sizes: np.ndarray
    digests: list[str]
    presence: np.ndarray | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, sample: int) -> Path:
        """Where the picture of a sample lies."""
        return self.root / self.paths[sample]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of names, contents, labels and order: what everything made from this set depends on."""
        rows = (f"{p}\t{d}\t{c}" for p, d, c in zip(self.paths, self.digests, self.labels.tolist(), strict=True))
        presence = "" if self.presence is None else self.presence.tobytes().hex()
        return digest_of_text("\n".join(rows), "\n".join(self.classes), presence)

    def shared_with(self, other: Index) -> int:
        """How many of the other's pictures stand in this one too, by content."""
        mine = set(self.digests)
        return sum(digest in mine for digest in other.digests)


def write_index(path: Path, index: Index) -> None:
    """Write the parquet file, and `<name>.left_out.tsv` beside it; all or nothing, equal content equal bytes."""
    rows = "".join(f"{name}\t{reason}\n" for name, reason in sorted(index.left_out.items()))
    write_text(path.with_suffix(".left_out.tsv"), "path\treason\n" + rows)
    columns: dict[str, Any] = {
        "sample": pa.array(range(len(index)), pa.int32()),
        "path": pa.array(index.paths, pa.string()),
        "label": pa.array(index.labels, pa.int32()),
        "width": pa.array(index.sizes[:, 0], pa.int32()),
        "height": pa.array(index.sizes[:, 1], pa.int32()),
        "digest": pa.array(index.digests, pa.string()),
    }
    if index.presence is not None:
        columns["presence"] = pa.array(list(index.presence), pa.list_(pa.int8()))
    about = {
        "root": str(index.root),
        "classes": index.classes,
        "fingerprint": index.fingerprint,
        "left_out": index.left_out,
        "spec": index.spec,
    }
    metadata = {"ssltransfer": json.dumps(about, sort_keys=True, ensure_ascii=False)}
    with replacing(path) as beside:
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), beside)


def read_index(path: Path) -> Index:
    """Read an index.

    Raises:
        ArtefactError: missing, or no index.
    """
    try:
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[b"ssltransfer"])
    except FileNotFoundError:
        raise ArtefactError(f"{path}: missing; run the index stage.") from None
    except (pa.ArrowInvalid, KeyError, TypeError):
        raise ArtefactError(f"{path}: not an index of pictures; remove it and run the index stage again.") from None
    presence = None
    if "presence" in table.column_names:
        presence = np.array(table["presence"].to_pylist(), np.int8).reshape(len(table), -1)
    return Index(
        root=Path(about["root"]),
        paths=table["path"].to_pylist(),
        labels=table["label"].to_numpy(),
        classes=about["classes"],
        sizes=np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1),
        digests=table["digest"].to_pylist(),
        presence=presence,
        left_out=about["left_out"],
        spec=about["spec"],
    )
