"""A motion stage that is killed at a chosen moment; run by test_motion.py in a process of its own.

Globals given: spec (JSON), data, output (paths) and kill ("", "half N", "between N", "end").
"""

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

from ssltransfer.artifacts import image_cache as artifact
from ssltransfer.config.formats import MotionOptions
from ssltransfer.stages import motion

given = globals()
write = artifact.write_shard
write_notes = motion.write_json


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half(images: Iterable[tuple[bytes, int, int]]) -> Iterator[tuple[bytes, int, int]]:
    for place, image in enumerate(images):
        if place == 1:
            die()
        yield image


def killing(folder: Path, number: int, images: Iterable[tuple[bytes, int, int]]) -> artifact.Shard:
    # Between the shard and the notes of its clips.
    motion.write_json = die if given["kill"] == f"between {number}" else write_notes
    return write(folder, number, half(images) if given["kill"] == f"half {number}" else images)


motion.write_shard = killing
if given["kill"] == "end":
    motion.write_index = die
motion.run(MotionOptions.parse(given["spec"]), data=Path(given["data"]), output=Path(given["output"]), threads=1)
