"""WebDataset: samples in tar files; the files of a sample share their path up to the first dot of the name."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssltransfer.config.base import suggest
from ssltransfer.config.formats import WebDataset
from ssltransfer.data.archives import MACOS_METADATA, Listing, members_of
from ssltransfer.data.formats import FORMATS, DatasetListing, LayoutError, folder_of
from ssltransfer.data.formats.folders import listing_of
from ssltransfer.data.formats.tables import labeled
from ssltransfer.data.image_io import EXTENSIONS


@FORMATS.register(WebDataset)
def find(dataset: WebDataset, *, workers: int = 1) -> DatasetListing:
    """One image per sample, in the order of the shards' names and of the files in each; labels from the other files."""
    root = Path(dataset.root)
    paths: list[str] = []
    places: list[tuple[Listing, str]] = []
    skipped: dict[str, str] = {}
    names = [dataset.label] if dataset.label else [dataset.labels] if isinstance(dataset.labels, str) else []
    names += dataset.labels if isinstance(dataset.labels, tuple) else ()
    columns: dict[str, list[Any]] = {name: [] for name in names}
    fields: set[str] = set()
    for shard in _shards(root, dataset.shards):
        listing = listing_of(shard)
        prefix = "" if shard == root else shard.relative_to(root).as_posix() + "/"
        for key, parts in _samples(listing):
            image = _image_of(dataset, parts, f"{shard}/{key}")
            if image is None:
                skipped[prefix + key] = f"no image among its files ({', '.join(sorted(parts))})"
                continue
            paths.append(prefix + image)
            places.append((listing, image))
            for name, column in columns.items():
                column.append(_field(listing, parts, name, fields))
    for name, column in columns.items():
        if paths and all(cell is None for cell in column):
            raise LayoutError(f"{root}: no sample has {name!r}{suggest(name, fields)}")
    found = labeled(dataset, columns, root)
    return replace(found, root=root, paths=paths, skipped=skipped, members=members_of(places))


def _shards(root: Path, pattern: str) -> list[Path]:
    if root.is_file():
        return [root]
    shards = sorted(path for path in root.glob(pattern) if path.is_file() and not path.name.startswith("."))
    if not shards:
        there = [entry.name for entry in folder_of(root)]
        raise LayoutError(
            f"{root}: no file {pattern!r}; set `shards`. It contains: {', '.join(there[:10]) or 'nothing'}."
        )
    return shards


def _samples(listing: Listing) -> Iterator[tuple[str, dict[str, str]]]:
    """Key of each sample, and the path of each of its files by the lower-case rest of the name."""
    samples: dict[str, dict[str, str]] = {}
    for path in listing.files:
        folder, name = posixpath.split(path)
        key, dot, rest = name.partition(".")
        if key and dot and MACOS_METADATA not in folder.split("/"):
            samples.setdefault(posixpath.join(folder, key), {})[rest.lower()] = path
    yield from samples.items()


def _image_of(dataset: WebDataset, parts: dict[str, str], where: str) -> str | None:
    if dataset.image:
        return parts.get(dataset.image.lower().removeprefix("."))
    images = [rest for rest in parts if f".{rest}" in EXTENSIONS]
    if len(images) > 1:
        raise LayoutError(f"{where}: has several images ({', '.join(sorted(images))}); set `image` to one of these.")
    return parts[images[0]] if images else None


def _field(listing: Listing, parts: dict[str, str], name: str, fields: set[str]) -> Any:
    """A label of a sample: the text of a file such as `cls`, or a value of a JSON file, such as `json.species`.

    `fields` collects the names that there are, for suggestions.
    """
    fields.update(parts)
    if name in parts:
        try:
            return listing.read(parts[name]).decode("utf-8").strip()
        except UnicodeDecodeError:
            raise LayoutError(f"{listing.archive}/{parts[name]}: not UTF-8 text; name another label.") from None
    suffix, _, key = name.partition(".")
    if suffix not in parts or not key:
        return None
    try:
        content = json.loads(listing.read(parts[suffix]))
    except ValueError as error:
        raise LayoutError(f"{listing.archive}/{parts[suffix]}: not valid JSON ({error}); write it again.") from None
    if not isinstance(content, dict):
        raise LayoutError(f"{listing.archive}/{parts[suffix]}: not a JSON object, so it has no {key!r}.")
    fields.update(f"{suffix}.{one}" for one in content)
    return content.get(key)
