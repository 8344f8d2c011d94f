"""Motion stage: the first frame of each clip of each video, with a mask of the pixels that move by themselves."""

import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from ssltransfer.artifacts.files import ArtifactError, read_json, write_json
from ssltransfer.artifacts.image_cache import ImageCache, Shard, read_shard, write_shard
from ssltransfer.artifacts.index import Index, Targets, read_index, write_index
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.formats import MotionOptions
from ssltransfer.data.image_cache import pack
from ssltransfer.data.image_io import CorruptImageError
from ssltransfer.data.motion import Motion, gray, label, motion_between, prepare
from ssltransfer.data.parallel import Job, parallel_imap
from ssltransfer.data.videos import opencv, read_frames, video_digest
from ssltransfer.digests import bytes_digest
from ssltransfer.logs import logger
from ssltransfer.processes import available_cores

VIDEOS_A_SHARD = 64  # at most; fewer in a small set, so that several processes share it


def run(spec: MotionOptions, *, data: Path, output: Path, threads: int | None = None) -> None:
    """Segment the moving pixels of the clips of an index of videos, and write an index of their first frames.

    The bytes depend neither on the number of processes nor on interruptions. Only missing or damaged shards are
    computed. {dataset}.skipped.tsv beside `output` lists the skipped clips. `threads` is
    the number of processes.

    Raises:
        ArtifactError: a video has changed since it was indexed, no clip can be used, or the disk is full.
    """
    threads = threads or available_cores()
    opencv()
    with WorkDir("motion", output, spec.canonical(), {"data": data}) as work:
        videos = read_index(data)
        if videos.spec.get("format") != "video":
            raise ArtifactError(f"{data}: an index of images; give one of a dataset of format video.")
        torch.set_num_threads(1)  # each process reads its own videos
        job = _ShardWriter(videos, spec, work.folder)
        logger.info(f"{len(videos)} videos in {len(job)} shards")
        made = list(parallel_imap(job, threads=threads, unit="video"))
        index = _index(videos, spec, work.folder, made)
        total = sum(part.shard.size for part in made)
        work.write_run_info(device=f"CPU ({threads} processes)", cache_bytes=total)
        write_index(output, index)
    logger.info("; ".join(_summary(index, made, total)))


@dataclass(frozen=True)
class Clips:
    """The clips of a shard's videos; the shard contains the first frame and the mask of each clip, alternating.

    Attributes:
        names: of the clips: the video's path, # and the number of the first frame.
        digests: of the pixels of each first frame, and of each mask.
        skipped: name of a clip or video -> reason.
    """

    shard: Shard
    names: list[str]
    digests: list[tuple[str, str]]
    skipped: dict[str, str]


class _ShardWriter(Job[Clips]):
    """Shard number -> its clips, computed if they are missing or damaged."""

    def __init__(self, videos: Index, spec: MotionOptions, folder: Path):
        self.videos, self.spec, self.folder = videos, spec, folder
        each = min(VIDEOS_A_SHARD, max(1, len(videos) // 16))
        self.spans = [range(start, min(start + each, len(videos))) for start in range(0, len(videos), each)]

    def __getitem__(self, number: int) -> Clips:
        return self._read(number) or self._make(number)

    def _notes(self, number: int) -> Path:
        return self.folder / f"{number:05}.clips.json"

    def _read(self, number: int) -> Clips | None:
        try:
            notes = read_json(self._notes(number))
            names, skipped = list(notes["names"]), dict(notes["skipped"])
            digests = [(image, cells) for image, cells in notes["digests"]]
        except (ArtifactError, KeyError, TypeError, ValueError):
            return None
        shard = read_shard(self.folder, number, 2 * len(names))
        return Clips(shard, names, digests, skipped) if shard else None

    def _make(self, number: int) -> Clips:
        names: list[str] = []
        digests: list[tuple[str, str]] = []
        skipped: dict[str, str] = {}

        def packed() -> Iterator[tuple[bytes, int, int]]:
            for video in self.spans[number]:
                for name, found in clips_of(self.videos, video, self.spec):
                    if isinstance(found, str):
                        skipped[name] = found
                        continue
                    image, cells = found
                    names.append(name)
                    digests.append((_digest(image), _digest(cells)))
                    yield pack(torch.from_numpy(image).permute(2, 0, 1), self.spec.cache)
                    yield cells.tobytes(), cells.shape[1], cells.shape[0]

        shard = write_shard(self.folder, number, packed())
        write_json(self._notes(number), {"names": names, "digests": digests, "skipped": skipped})
        return Clips(shard, names, digests, skipped)


def _digest(values: np.ndarray) -> str:
    return bytes_digest(values.tobytes())


def clips_of(
    videos: Index, video: int, spec: MotionOptions
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray] | str]]:
    """Name of each clip of a video with its first frame, uint8 (H, W, 3), and its mask, or the reason to skip it.

    Raises:
        ArtifactError: the video is missing or corrupt, or has changed since it was indexed.
    """
    path = videos.path(video)
    try:
        if video_digest(path) != videos.digests[video]:
            raise ArtifactError(f"{path}: has changed since the index was made; run the index stage again.")
        longest = 0
        for start, frames, motions in _windows(path, spec):
            longest = max(longest, start + spec.clip_length)
            cells = label(gray(frames), motions, spec)
            share, (least, most) = float(cells.mean()), spec.foreground_range
            name = f"{videos.paths[video]}#{start}"
            if least <= share <= most:
                yield name, (frames, cells)
            elif share < least:
                yield name, f"less than {least:.0%} of it moves by itself"
            else:
                yield name, f"more than {most:.0%} of it moves by itself"
        if not longest:
            yield videos.paths[video], f"has less than the {spec.clip_length} frames of a clip"
    except (CorruptImageError, OSError) as error:
        raise ArtifactError(
            f"{path}: was readable when the index was made and is not any more ({error}); "
            "restore it or run the index stage again."
        ) from error


def _windows(path: Path, spec: MotionOptions) -> Iterator[tuple[int, np.ndarray, list[Motion]]]:
    """Number of the first frame, the first frame and the motions of each clip, computed only for frames in a clip."""
    starts: deque[tuple[int, np.ndarray, list[Motion]]] = deque()
    before = None
    for number, frame in enumerate(read_frames(path)):
        wanted = starts or number % spec.clip_stride == 0
        if not wanted:
            continue
        small = prepare(frame, spec.size)
        now = gray(small)
        if starts:
            assert before is not None
            motion = motion_between(before, now, spec.flow)
            for _, _, motions in starts:
                motions.append(motion)
            if len(starts[0][2]) == spec.clip_length - 1:
                yield starts.popleft()
        if number % spec.clip_stride == 0:
            starts.append((number, small, []))
        before = now


def _index(videos: Index, spec: MotionOptions, folder: Path, made: list[Clips]) -> Index:
    names = [name for part in made for name in part.names]
    skipped = dict(chain(videos.skipped.items(), *(part.skipped.items() for part in made)))
    if not names:
        reason, count = Counter(chain(*(part.skipped.values() for part in made))).most_common(1)[0]
        raise ArtifactError(
            f"{videos.root}: none of the {sum(len(part.skipped) for part in made)} clips of its {len(videos)} videos "
            f"can be used ({count}: {reason}); use other videos, or set motion.clip_length or foreground_range."
        )
    rows = np.concatenate([part.shard.rows for part in made])
    shards = [(part.shard.size, part.shard.digest) for part in made]
    images, cells = (ImageCache(folder, spec.cache, shards, rows[turn::2]) for turn in (0, 1))
    height, width = spec.size
    digests = list(chain(*(part.digests for part in made)))
    return Index(
        root=videos.root,
        paths=names,
        labels=np.full(len(names), -1, np.int32),
        classes=[],
        sizes=np.tile(np.array([width, height], np.int32), (len(names), 1)),
        digests=[image for image, _ in digests],
        skipped=skipped,
        spec=videos.spec | {"motion": json.loads(spec.canonical())},
        cache=images,
        targets=Targets("motion", names, [digest for _, digest in digests], cells),
    )


def _summary(index: Index, made: list[Clips], total: int) -> Iterator[str]:
    yield f"{len(index)} clips, {total / 1e6:.1f} MB"
    for reason, count in Counter(chain(*(part.skipped.values() for part in made))).most_common(3):
        yield f"{count} {reason}"
