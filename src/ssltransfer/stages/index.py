"""Index: every picture of a dataset, opened and decoded once; what was left out and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ssltransfer.artefacts.files import ArtefactError
from ssltransfer.artefacts.index import Index, write_index
from ssltransfer.config.formats import Dataset
from ssltransfer.data.draws import seed_of
from ssltransfer.data.layouts import Found, find
from ssltransfer.data.pictures import BadPicture, Checked, check


def run(spec: Dataset, *, output: Path, threads: int | None = None) -> None:
    """Find the pictures of a dataset, decode each one strictly, and write the index.

    Args:
        spec: the dataset.
        output: index/{dataset}.parquet; what was left out goes to {dataset}.left_out.tsv beside it.
        threads: processes that decode.

    Raises:
        LayoutError: the folder is not as the format says.
        ArtefactError: too many pictures are unreadable, or one is and that is to be an error.
    """
    found = _limited(find(spec, workers=threads or 1), spec.limit)
    for note in found.notes:
        print(note, flush=True)
    readable, left_out = _check_all(found, threads or 1)
    share = 1 - len(readable) / len(found.paths)
    if left_out and (share > spec.minority or spec.bad_pictures == "error"):
        path, reason = next(iter(left_out.items()))
        raise ArtefactError(
            f"{found.root}: {len(left_out)} of {len(found.paths)} pictures cannot be read "
            f"(the first: {path}: {reason}); mend or remove them, or set bad_pictures and minority of this dataset."
        )
    kept = [place for place, _ in readable]
    labels = np.array(found.labels if found.labels is not None else [-1] * len(found.paths), np.int32)[kept]
    if found.labels is not None:
        emptied = sorted(set(found.labels) - set(labels.tolist()))
        if emptied:
            raise ArtefactError(
                f"{found.root}: no picture of class {found.classes[emptied[0]]!r} can be read; mend or remove the class."
            )
    index = Index(
        root=found.root,
        paths=[found.paths[place] for place in kept],
        labels=labels,
        classes=found.classes,
        sizes=np.array([(checked.width, checked.height) for _, checked in readable], np.int32).reshape(-1, 2),
        digests=[checked.digest for _, checked in readable],
        presence=found.presence[kept] if found.presence is not None else None,
        left_out=found.left_out | left_out,
        spec=json.loads(spec.canonical()),
    )
    write_index(output, index)
    doubled = len(index) - len(set(index.digests))
    print(
        f"{len(index)} pictures, {len(index.classes)} classes, {len(index.left_out)} files left out"
        + "".join(f"; {count} {reason}" for reason, count in Counter(index.left_out.values()).most_common(3))
        + (f"; {doubled} pictures stand there twice" if doubled else ""),
        flush=True,
    )


def _limited(found: Found, limit: int | None) -> Found:
    """`limit` pictures drawn at random by a fixed seed, in their old order: a smaller limit takes a part of them."""
    if limit is None or limit >= len(found.paths):
        return found
    # By name, not by place: another picture in the folder does not draw all others anew.
    order = sorted(range(len(found.paths)), key=lambda place: seed_of("limit", found.paths[place]))
    kept = sorted(order[:limit])
    return Found(
        found.root,
        [found.paths[place] for place in kept],
        [found.labels[place] for place in kept] if found.labels is not None else None,
        found.classes,
        found.presence[kept] if found.presence is not None else None,
        found.left_out,
        found.notes,
    )


def _check_all(found: Found, threads: int) -> tuple[list[tuple[int, Checked]], dict[str, str]]:
    paths = [found.root / path for path in found.paths]
    readable: list[tuple[int, Checked]] = []
    left_out: dict[str, str] = {}
    results: Iterable[Checked | str]
    # Spawned, not forked: the pool must not inherit the state of libraries that are already running threads.
    pool = ProcessPoolExecutor(threads, mp_context=get_context("spawn")) if threads > 1 and len(paths) > 500 else None
    try:
        results = pool.map(_check, paths, chunksize=64) if pool else map(_check, paths)
        for place, result in enumerate(tqdm(results, total=len(paths), unit="picture", disable=None, leave=False)):
            if isinstance(result, str):
                left_out[found.paths[place]] = result
            else:
                readable.append((place, result))
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)
    return readable, left_out


def _check(path: Path) -> Checked | str:
    try:
        return check(path)
    except BadPicture as error:
        return str(error)
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
