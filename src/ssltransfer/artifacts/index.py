"""The index of a dataset: one parquet row per image, in a fixed order, and the skipped files with reasons."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssltransfer.artifacts.archives import MEMBER_ROW, Member, Members
from ssltransfer.artifacts.files import ArtifactError, atomic_write, text_digest
from ssltransfer.artifacts.image_cache import ROW, ImageCache
from ssltransfer.artifacts.strings import Strings
from ssltransfer.artifacts.tables import read_table
from ssltransfer.config.formats import CacheOptions, TargetKind

SKIPPED = ".skipped.tsv"


@dataclass(frozen=True)
class Targets:
    """Targets of each image other than labels, in separate files or in the image cache.

    Attributes:
        kind: boxes, masks, depth or motion.
        paths: relative path of each below the index's root; for cached ones, of their source.
        digests: content digest of each.
        cache: their positions in the shards, if they are cached.
    """

    kind: TargetKind
    paths: Sequence[str]
    digests: Sequence[str]
    cache: ImageCache | None = None


@dataclass(frozen=True)
class Index:
    """Images of a dataset.

    Attributes:
        root: folder that `paths` start from.
        paths: relative path of each image; its position is the sample id.
        labels: int32 (N,), class of each image, -1 where there is none.
        classes: names of the classes.
        multi_label: int8 (N, C) for sets with several labels per image: 1 present, 0 difficult, -1 absent.
        sizes: int32 (N, 2), width and height in pixels, upright.
        digests: content digest of each file; equal images have equal ones.
        notes: relative path -> note on how the file is decoded, such as a rotation.
        skipped: relative path -> reason.
        spec: the dataset's spec as it was declared.
        cache: the decoded images, if they were cached; `data.image_cache.read_sample` reads either.
        targets: boxes, masks or depth; `data.targets.read_target` reads them.
        members: the images' positions in archives, if they are not files of their own.
    """

    root: Path
    paths: Sequence[str]
    labels: np.ndarray
    classes: list[str]
    sizes: np.ndarray
    digests: Sequence[str]
    multi_label: np.ndarray | None = None
    notes: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    cache: ImageCache | None = None
    targets: Targets | None = None
    members: Members | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, sample: int) -> Path:
        """The path of a sample's image; in an archive it only serves as a name."""
        return self.root / self.paths[sample]

    def source(self, sample: int) -> Path | Member:
        """What `data.image_io.read` reads a sample's image from: its file, or its place in an archive."""
        path = self.path(sample)
        return path if self.members is None else self.members.member(sample, path)

    @cached_property
    def has_labels(self) -> bool:
        """Whether any image has a class label."""
        return bool((self.labels >= 0).any())

    def with_labels(self, labels: np.ndarray, classes: list[str]) -> Index:
        """The same images with other class labels, int (N,), -1 for none: pseudo-labels or renumbered classes."""
        return replace(self, labels=labels.astype(np.int32), classes=list(classes))

    @cached_property
    def fingerprint(self) -> str:
        """Digest of names, contents, labels and order, on which all results of this dataset depend.

        It excludes the root, because a folder that was moved contains the same images. It includes the options of the
        cache, because cached pixels differ from those of the files.
        """
        names = map(_one_line, self.paths)
        rows = (f"{p}\t{d}\t{c}" for p, d, c in zip(names, self.digests, self.labels.tolist(), strict=True))
        multi_label = "" if self.multi_label is None else self.multi_label.tobytes().hex()
        cache = [] if self.cache is None else [json.dumps(self.cache.shards), self.cache.options.canonical()]
        targets = [] if self.targets is None else [self.targets.kind, "\n".join(self.targets.digests)]
        return text_digest("\n".join(rows), "\n".join(map(_one_line, self.classes)), multi_label, *cache, *targets)

    def subset(self, ids: np.ndarray) -> Index:
        """The index of the images at these positions, int64, renumbered in this order."""
        targets = self.targets
        if targets is not None:
            paths, digests = ([column[sample] for sample in ids] for column in (targets.paths, targets.digests))
            targets = Targets(targets.kind, paths, digests, _some(targets.cache, ids))
        return replace(
            self,
            paths=[self.paths[sample] for sample in ids],
            labels=self.labels[ids],
            sizes=self.sizes[ids],
            digests=[self.digests[sample] for sample in ids],
            multi_label=None if self.multi_label is None else self.multi_label[ids],
            cache=_some(self.cache, ids),
            targets=targets,
            members=None if self.members is None else self.members.subset(ids),
        )

    def num_shared_with(self, other: Index) -> int:
        """Number of images of `other` that also occur in this index (same content)."""
        mine = set(self.digests)
        return sum(digest in mine for digest in other.digests)


def labels_by_name(train: Index, test: Index, names: tuple[str, str]) -> np.ndarray:
    """Labels of the test images, int64 (N,), numbered like the classes of the training set with the same name.

    `names` are those of the two data sets, for errors.

    Raises:
        ArtifactError: an image of one of the sets has no label, or a test class is not in the training set.
    """
    for index, name in zip((train, test), names, strict=True):
        if (index.labels < 0).any():
            raise ArtifactError(f"{name}: not every image has a class label; name a labeled dataset.")
    number = {name: label for label, name in enumerate(train.classes)}
    renumbered = np.array([number.get(name, -1) for name in test.classes], np.int64)[test.labels]
    if (renumbered < 0).any():
        raise ArtifactError(
            f"{names[1]}: class {test.classes[test.labels[renumbered < 0].min()]!r} is not in the training set "
            f"{names[0]}; name two splits of the same classes."
        )
    return renumbered


def _some(cache: ImageCache | None, ids: np.ndarray) -> ImageCache | None:
    return None if cache is None else replace(cache, rows=cache.rows[ids])


def write_index(path: Path, index: Index, *, cluster: str | None = None) -> None:
    """Write the parquet file and `<name>.skipped.tsv`, all or nothing; equal content gives equal bytes.

    Skipped files are listed in the tsv only, so that a text file among the images does not invalidate results.
    A tab, a line break or a backslash in a name is escaped as \\t, \\n, \\r or \\\\ in the tsv, and unescaped in the
    parquet file. `cluster` is the digest of the clustering that a curated dataset was chosen from.

    Raises:
        ArtifactError: the disk is full or not writable.
    """
    lines = (f"{_one_line(name)}\t{_one_line(reason)}\n" for name, reason in sorted(index.skipped.items()))
    about: dict[str, Any] = {
        "root": str(index.root),
        "classes": index.classes,
        "fingerprint": index.fingerprint,
        "spec": index.spec,
    }
    if cluster is not None:
        about["cluster"] = cluster
    if index.cache is not None:
        about["cache"] = {
            # Relative to the index, so that results can be moved.
            "folder": Path(os.path.relpath(index.cache.folder, path.parent)).as_posix(),
            "options": index.cache.options.canonical(),
            "shards": index.cache.shards,
        }
    if index.targets is not None:
        about["targets"] = index.targets.kind
    if index.members is not None:
        about["archives"] = [(str(archive), size) for archive, size in index.members.archives]
    metadata = {"ssltransfer": json.dumps(about, sort_keys=True, ensure_ascii=False)}
    table = pa.table(_columns(index)).replace_schema_metadata(metadata)
    # Write both before renaming either.
    with atomic_write(path.with_suffix(SKIPPED)) as skipped, atomic_write(path) as beside:
        skipped.write_text("path\treason\n" + "".join(lines), encoding="utf-8")
        pq.write_table(table, beside, write_page_checksum=True)


def _columns(index: Index) -> dict[str, pa.Array]:
    labels = pa.array(index.labels, pa.int32())
    named = pa.array(index.labels, pa.int32(), mask=index.labels < 0)
    columns = {
        "sample": pa.array(range(len(index)), pa.int32()),
        "path": pa.array(index.paths, pa.string()),
        "label": labels,
        "class": pa.DictionaryArray.from_arrays(named, pa.array(index.classes, pa.string())),
        "width": pa.array(index.sizes[:, 0], pa.int32()),
        "height": pa.array(index.sizes[:, 1], pa.int32()),
        "digest": pa.array(index.digests, pa.string()),
    }
    if index.notes:
        columns["note"] = pa.array([index.notes.get(path) for path in index.paths], pa.string())
    if index.multi_label is not None:
        columns["multi_label"] = pa.array(list(index.multi_label), pa.list_(pa.int8()))
    if index.targets is not None:
        columns["target"] = pa.array(index.targets.paths, pa.string())
        columns["target_digest"] = pa.array(index.targets.digests, pa.string())
        if index.targets.cache is not None:
            columns |= _placed(index.targets.cache, "target_")
    if index.cache is not None:
        columns |= _placed(index.cache, "")
    if index.members is not None:
        columns |= {name: pa.array(index.members.rows[name]) for name in MEMBER_ROW.names or ()}
    return columns


def _placed(cache: ImageCache, prefix: str) -> dict[str, pa.Array]:
    return {prefix + name: pa.array(cache.rows[name]) for name in ROW.names or ()}


_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_TABLE = {ord(sign): escaped for sign, escaped in _ESCAPES.items()}


def _one_line(text: str) -> str:
    return text.translate(_TABLE)


def _several_lines(text: str) -> str:
    signs = {escaped: sign for sign, escaped in _ESCAPES.items()}
    return re.sub(r"\\.", lambda match: signs.get(match[0], match[0]), text)


def _read_skipped(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")[1:-1]
    return {
        _several_lines(name): _several_lines(reason) for name, _, reason in (line.partition("\t") for line in lines)
    }


def read_index(path: Path) -> Index:
    """Read an index, and its list of skipped files if it exists.

    Raises:
        ArtifactError: missing, damaged, or not an index.
    """
    table, about = read_table(path, "index of images", "index")
    paths = Strings(table["path"])
    notes = table["note"].to_pylist() if "note" in table.column_names else [None] * len(paths)
    multi_label = None
    if "multi_label" in table.column_names:
        multi_label = np.array(table["multi_label"].to_pylist(), np.int8).reshape(len(table), -1)
    return Index(
        root=Path(about["root"]),
        paths=paths,
        labels=table["label"].to_numpy(),
        classes=about["classes"],
        sizes=np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1),
        digests=Strings(table["digest"]),
        multi_label=multi_label,
        notes={name: text for name, text in zip(paths, notes, strict=True) if text},
        skipped=_read_skipped(path.with_suffix(SKIPPED)),
        spec=about["spec"],
        cache=_read_cache(path, table, about["cache"]) if "cache" in about else None,
        targets=_read_targets(path, table, about) if "targets" in about else None,
        members=_read_members(table, about["archives"]) if "archives" in about else None,
    )


def read_classes(path: Path) -> list[str]:
    """The classes of an index, without its images.

    Raises:
        OSError: missing.
    """
    classes: list[str] = json.loads(pq.read_metadata(path).metadata[b"ssltransfer"])["classes"]
    return classes


def _read_targets(path: Path, table: pa.Table, about: dict[str, Any]) -> Targets:
    cache = None
    if "target_shard" in table.column_names:
        cache = _read_cache(path, table, about["cache"], "target_")
    return Targets(about["targets"], Strings(table["target"]), Strings(table["target_digest"]), cache)


def _read_cache(path: Path, table: pa.Table, about: dict[str, Any], prefix: str = "") -> ImageCache:
    rows = _rows(table, ROW, prefix)
    shards = [(size, digest) for size, digest in about["shards"]]
    return ImageCache(path.parent / about["folder"], CacheOptions.parse(about["options"]), shards, rows)


def _read_members(table: pa.Table, archives: list[tuple[str, int]]) -> Members:
    return Members([(Path(archive), size) for archive, size in archives], _rows(table, MEMBER_ROW))


def _rows(table: pa.Table, kind: np.dtype[Any], prefix: str = "") -> np.ndarray:
    rows = np.empty(len(table), kind)
    for name in kind.names or ():
        rows[name] = table[prefix + name].to_numpy()
    return rows
