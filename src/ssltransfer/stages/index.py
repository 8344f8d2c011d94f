"""Index stage: decode each image of a dataset once, and list the valid and the skipped ones."""

from __future__ import annotations

import json
import time
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index, Targets, write_index
from ssltransfer.artifacts.workdir import write_run_info
from ssltransfer.config.base import NameFile
from ssltransfer.config.formats import Dataset, Video
from ssltransfer.data.formats import DatasetListing, LayoutError, find
from ssltransfer.data.image_io import CorruptImageError, ImageInfo, check
from ssltransfer.data.rng import seed_of
from ssltransfer.data.targets import CorruptTargetError, check_target
from ssltransfer.data.videos import check_video
from ssltransfer.logs import logger
from ssltransfer.processes import available_cores
from ssltransfer.training.progress import Progress


def run(spec: Dataset, *, output: Path, threads: int | None = None) -> None:
    """Find the images of a dataset, decode each one strictly, and write the index.

    The bytes do not depend on the number of threads. With `limit` or `holdout` images are first drawn and then
    decoded: a corrupt one is skipped and not replaced.

    {dataset}.skipped.tsv beside `output` lists the skipped files with the reasons.

    Raises:
        LayoutError: the folder does not have the layout of the format.
        ArtifactError: too many images are corrupt, or any is with `on_corrupt: error`, or the storage failed.
    """
    started = time.monotonic()
    threads = threads or available_cores()
    index = make_index(spec, threads)
    write_index(output, index)
    write_run_info(output, started, device=f"CPU ({threads} threads)")
    logger.info("; ".join(_summary(index)))


def make_index(spec: Dataset, threads: int | None = None) -> Index:
    """The index of a dataset, not written.

    Raises:
        LayoutError, ArtifactError: see `run`.
    """
    threads = threads or available_cores()
    found = list_images(spec, workers=threads)
    for note in found.notes:
        logger.info(note)
    readable = _Readable(found, spec, threads)
    _check_corrupt_fraction(found, readable, spec)
    labels = np.full(len(found.paths), -1, np.int32) if found.labels is None else np.array(found.labels, np.int32)
    return Index(
        root=found.root,
        paths=[found.paths[place] for place in readable.places],
        labels=labels[readable.places],
        classes=found.classes,
        sizes=np.array(readable.sizes, np.int32).reshape(-1, 2),
        digests=readable.digests,
        multi_label=found.multi_label[readable.places] if found.multi_label is not None else None,
        notes=readable.notes,
        skipped=found.skipped | readable.skipped,
        spec=json.loads(spec.canonical()),
        targets=_targets(found, readable, spec),
        members=None if found.members is None else found.members.subset(np.array(readable.places, np.int64)),
    )


def _targets(found: DatasetListing, readable: _Readable, spec: Dataset) -> Targets | None:
    if found.targets is None or spec.target is None:
        return None
    return Targets(spec.target, [found.targets[place] for place in readable.places], readable.target_digests)


class _Readable:
    """The valid images. Each image is decoded, and its boxes, mask or depth is read.

    Attributes:
        places: their positions in `found.paths`, ascending.
        sizes: width and height of each, flat.
        digests: content digest of each.
        target_digests: digest of the boxes, mask or depth of each, if the dataset has targets.
        notes: path -> unexpected property of a valid image.
        skipped: path -> reason, for the other images.
    """

    def __init__(self, found: DatasetListing, spec: Dataset, threads: int):
        self.places = array("q")
        self.sizes = array("i")
        self.digests: list[str] = []
        self.target_digests: list[str] = []
        self.notes: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        results = _check_all(found, threads, check_video if isinstance(spec, Video) else check)
        progress = Progress("index", 0, len(found.paths), 1)
        for place, result in enumerate(results):
            progress.step()
            path = found.paths[place]
            if isinstance(result, ImageInfo) and found.targets and spec.target:
                try:
                    file = found.root / found.targets[place]
                    size = (result.width, result.height)
                    self.target_digests.append(check_target(spec.target, file, *size, found.classes))
                except CorruptTargetError as error:
                    result = str(error)
            if isinstance(result, str):
                self.skipped[path] = result
                continue
            self.places.append(place)
            self.sizes.extend((result.width, result.height))
            self.digests.append(result.digest)
            if result.note:
                self.notes[path] = result.note
        progress.close()


def _check_all(found: DatasetListing, threads: int, check: Callable[[Any], ImageInfo]) -> Iterator[ImageInfo | str]:
    """The result of `check` for each image, or the reason to skip it, in order.

    Decoders and digests release the GIL, so threads suffice, and they start faster than processes. Only a few batches
    are submitted at a time, which bounds the memory for a million paths.
    """
    starts = iter(range(0, len(found.paths), 64))
    waiting: deque[Future[list[ImageInfo | str]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        while True:
            while len(waiting) < 4 * threads and (start := next(starts, None)) is not None:
                waiting.append(pool.submit(_check_some, found, range(start, min(start + 64, len(found.paths))), check))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _check_some(found: DatasetListing, span: range, check: Callable[[Any], ImageInfo]) -> list[ImageInfo | str]:
    results: list[ImageInfo | str] = []
    for source in map(found.source, span):
        try:
            results.append(check(source))
        except CorruptImageError as error:
            results.append(str(error))
        except OSError as error:
            # The image may be valid, so skipping it would give a wrong index.
            raise ArtifactError(
                f"{source}: the storage failed ({error.strerror or error}); fix it, then run the same command again."
            ) from error
    return results


def _check_corrupt_fraction(found: DatasetListing, readable: _Readable, spec: Dataset) -> None:
    """Raise an error if too many images are corrupt, or all images of a class."""
    skipped = readable.skipped
    share = len(skipped) / len(found.paths)
    if skipped and (share > spec.max_corrupt_fraction or spec.on_corrupt == "error" or not readable.places):
        path, reason = next(iter(skipped.items()))
        raise ArtifactError(
            f"{found.root}: {len(skipped)} of {len(found.paths)} images cannot be read "
            f"(the first: {path}: {reason}); fix or remove them, or set on_corrupt and max_corrupt_fraction."
        )
    if found.labels is None:
        return
    before = Counter(label for label in found.labels if label >= 0)
    emptied = sorted(before.keys() - {found.labels[place] for place in readable.places})
    if emptied:
        path = next(path for path, label in zip(found.paths, found.labels, strict=True) if label == emptied[0])
        raise ArtifactError(
            f"{found.root}: none of the {before[emptied[0]]} images of class {found.classes[emptied[0]]!r} can be "
            f"read (the first: {path}: {skipped[path]}); fix or remove the class."
        )


def list_images(spec: Dataset, *, workers: int = 1) -> DatasetListing:
    """The images of a dataset before any is opened, as its options select them.

    Raises:
        LayoutError: the folder does not have the layout of the format, or no image is selected.
    """
    return _apply_filters(find(spec, workers=workers), spec)


def _apply_filters(found: DatasetListing, spec: Dataset) -> DatasetListing:
    """The images selected by `include`, `exclude`, `holdout` and `limit`, in their old order.

    Raises:
        LayoutError: a listed image is missing, or no image is selected.
    """
    places = set(range(len(found.paths)))
    for names, keep in ((spec.include, True), (spec.exclude, False)):
        if names is not None:
            named = _named(found, names, all_of_them=keep)
            places = places & named if keep else places - named
    if holdout := spec.holdout:
        drawn = {place: seed_of("holdout", holdout.seed, found.paths[place]) for place in places}
        if holdout.fraction:
            val = {place for place in places if drawn[place] < holdout.fraction * 2**63}  # seeds have 63 bits
        else:
            val = set(sorted(places, key=drawn.__getitem__)[: holdout.num_images])
        places = val if holdout.part == "val" else places - val
    if not places:
        raise LayoutError(f"{found.root}: include, exclude and holdout of this dataset leave no image.")
    return _subsample(found.subset(sorted(places)), spec.limit)


def _named(found: DatasetListing, names: NameFile, *, all_of_them: bool) -> set[int]:
    """Positions of the images of a list: by path, by file name, or by file name without its suffix (VOC's ids)."""
    known: defaultdict[str, list[int]] = defaultdict(list)
    for place, path in enumerate(found.paths):
        name = path.rpartition("/")[2]
        for called in {path, name, name.rpartition(".")[0]}:
            known[called].append(place)
    listed = names.names(known.__contains__)
    missing = [name for name in listed if name not in known]
    if missing and (all_of_them or len(missing) == len(listed)):
        raise LayoutError(
            f"{names.path}: {len(missing)} of its {len(listed)} images are not in {found.root} (the first: "
            f"{missing[0]}); give the list that belongs to this dataset."
        )
    if missing:
        logger.info(
            f"{names.path}: {len(missing)} of its {len(listed)} names were not found (the first: {missing[0]})."
        )
    several = next((name for name in listed if len(known.get(name, ())) > 1), None)
    if several:
        raise LayoutError(f"{names.path}: {several} names several images of {found.root}; give their paths.")
    return {known[name][0] for name in listed if name in known}


def _subsample(found: DatasetListing, limit: int | None) -> DatasetListing:
    """`limit` images drawn at random by a fixed seed, in their old order, from each class in proportion to its size.

    The draw depends on the names, so an additional image does not change the order of the others. A smaller limit
    draws a subset of a larger one. Classes are rounded up (Adams's apportionment: every class has one image before any
    has two), so no class is lost if `limit` is at least the number of classes.
    """
    if limit is None or limit >= len(found.paths):
        return found
    labels = found.labels or [0] * len(found.paths)
    members: defaultdict[int, list[int]] = defaultdict(list)
    chance = [seed_of("limit", path) for path in found.paths]
    for place in sorted(range(len(found.paths)), key=chance.__getitem__):
        members[labels[place]].append(place)
    turns = (
        (rank / len(places), chance[place], place) for places in members.values() for rank, place in enumerate(places)
    )
    kept = sorted(place for _, _, place in sorted(turns)[:limit])
    lost = len(members) - len({labels[place] for place in kept})
    notes = [*found.notes, *([f"limit {limit} leaves {lost} classes without an image."] if lost else [])]
    return replace(found.subset(kept), notes=notes)


def _summary(index: Index) -> Iterator[str]:
    if index.spec.get("format") == "video":
        yield f"{len(index)} videos, {len(index.skipped)} files left out"
    else:
        yield f"{len(index)} images, {len(index.classes)} classes, {len(index.skipped)} files left out"
    for reason, count in Counter(index.skipped.values()).most_common(3):
        yield f"{count} {reason}"
    doubled = len(index) - len(set(index.digests))
    if doubled:
        yield f"{doubled} images repeat another's content"
