"""A cache that is killed at a chosen moment; run by test_cache.py in a process of its own.

Globals given: spec (JSON), data, output, log (paths), threads and kill ("", "after N", "half N", "between N", "end").
The number of every shard that is made is written to the log.
"""

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

from ssltransfer.artifacts import image_cache as artifact
from ssltransfer.config.formats import CacheOptions
from ssltransfer.stages import cache

given = globals()
artifact.SMALLEST_SHARD_BYTES = given["shard_bytes"]
write = artifact.write_shard
write_table = artifact.write_json


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half(images: Iterable[tuple[bytes, int, int]]) -> Iterator[tuple[bytes, int, int]]:
    for place, image in enumerate(images):
        if place == 3:
            die()
        yield image


def killing(folder: Path, number: int, images: Iterable[tuple[bytes, int, int]]) -> artifact.Shard:
    with Path(given["log"]).open("a") as log:
        log.write(f"{number}\n")
    # Between the shard and its table.
    artifact.write_json = die if given["kill"] == f"between {number}" else write_table
    shard = write(folder, number, half(images) if given["kill"] == f"half {number}" else images)
    if given["kill"] == f"after {number}":
        die()
    return shard


if given["threads"] == 1:
    cache.write_shard = killing
if given["kill"] == "end":
    cache.write_index = die
spec = CacheOptions.parse(given["spec"])
cache.run(spec, data=Path(given["data"]), output=Path(given["output"]), threads=given["threads"])
