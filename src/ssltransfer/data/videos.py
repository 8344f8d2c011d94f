"""Video reading: the frames, in order, of a file that FFmpeg decodes or of a folder of frames.

`check_video` verifies a video once, strictly, for the index; `read_frames` reads its frames. Files are decoded by
OpenCV's FFmpeg, which silently conceals damage within a frame; detected are truncated files, missing frames and
containers that cannot be opened. Frames of a folder are read by `image_io`, strictly. Nothing seeks: the position of a
frame in a compressed file is known only after decoding the frames before it.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ssltransfer.artifacts.files import file_digest
from ssltransfer.data.image_io import (
    MAX_PIXELS,
    MIN_SIDE,
    CorruptImageError,
    ImageInfo,
    check,
    is_candidate,
    open_file,
    read,
)
from ssltransfer.digests import bytes_digest
from ssltransfer.extras import import_extra

T = TypeVar("T")

VIDEO_EXTENSIONS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv"})
"""Lower-case file extensions of videos in a folder scan."""

_QUIET = {"OPENCV_FFMPEG_LOGLEVEL": "-8", "OPENCV_LOG_LEVEL": "ERROR"}


def frame_files(folder: Path) -> list[Path]:
    """The images in a folder, in the order of the numbers in their names: 2.jpg before 10.jpg."""
    return sorted(filter(is_candidate, folder.iterdir()), key=_by_numbers)


def _by_numbers(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"([0-9]+)", path.stem)
    return [(int(part), "") if place % 2 else (-1, part) for place, part in enumerate(parts)], path.name


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video in order, uint8 (H, W, 3), RGB, upright.

    Raises:
        CorruptImageError: it cannot be read faithfully; may be raised after frames that were readable.
        OSError: the storage failed; the video itself may be intact.
        MissingExtraError: OpenCV is not installed.
    """
    if not path.is_dir():
        yield from _decode(path)
        return
    for _, frame in _same_size(path, _pixels, lambda frame: (frame.shape[1], frame.shape[0])):
        yield frame


def check_video(path: Path) -> ImageInfo:
    """Decode a video from its first frame to its last and return its properties.

    The digest of a folder is that of its frames' names and digests.

    Raises:
        CorruptImageError, OSError, ArtifactError: as `read_frames`.
    """
    if not path.is_dir():
        height = width = 0
        for frame in _decode(path):
            height, width = frame.shape[:2]
        return ImageInfo(width, height, path.suffix[1:].upper(), "RGB", file_digest(path), None)
    infos = dict(_same_size(path, check, lambda info: (info.width, info.height)))
    if not infos:
        raise CorruptImageError("no frames")
    digest = _digest([(file.name, info.digest) for file, info in infos.items()])
    return replace(next(iter(infos.values())), digest=digest, note=None)


def video_digest(path: Path) -> str:
    """The digest that `check_video` found; raises `OSError` if the video can no longer be read."""
    if not path.is_dir():
        return file_digest(path)
    return _digest([(file.name, file_digest(file)) for file in frame_files(path)])


def _digest(frames: list[tuple[str, str]]) -> str:
    text = "".join(f"{name}\n{digest}\n" for name, digest in frames)
    return bytes_digest(text.encode())


def _pixels(file: Path) -> np.ndarray:
    return np.ascontiguousarray(read(file).permute(1, 2, 0).numpy())


def _same_size(
    folder: Path, load: Callable[[Path], T], size_of: Callable[[T], tuple[int, int]]
) -> Iterator[tuple[Path, T]]:
    """Each frame of a folder, loaded; raises an error if one differs from the first in width or height."""
    first: tuple[int, int] | None = None
    for file in frame_files(folder):
        try:
            frame = load(file)
        except CorruptImageError as error:
            raise CorruptImageError(f"{file.name}: {error}") from error
        size = size_of(frame)
        first = first or size
        if size != first:
            raise CorruptImageError(f"{file.name}: {size[0]}x{size[1]}, the frames before have {first[0]}x{first[1]}")
        yield file, frame


def _decode(path: Path) -> Iterator[np.ndarray]:
    cv2 = opencv()
    open_file(path).close()
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not capture.isOpened():
            raise CorruptImageError("not a video that FFmpeg can open (truncated, damaged or not a video)")
        promised = round(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        width, height = (round(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MAX_PIXELS or min(width, height) < MIN_SIDE:
            raise CorruptImageError(
                f"frames of {width}x{height}; need {MIN_SIDE} pixels on the short side and at most {MAX_PIXELS} in all"
            )
        count, (there, frame) = 0, capture.read()
        while there:
            count += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            there, frame = capture.read()
    finally:
        capture.release()
    if count == 0:
        raise CorruptImageError("no frame can be decoded")
    # Containers without a frame table promise duration x rate, which may be one or two more.
    if count < promised - max(2, promised // 50):
        raise CorruptImageError(f"truncated or damaged: {count} of {promised} frames can be decoded")


@cache
def opencv() -> Any:
    """OpenCV, on one thread.

    Raises:
        MissingExtraError: it is not installed.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    cv2 = import_extra("cv2", "opencv", "reading videos")
    cv2.setNumThreads(1)
    return cv2
