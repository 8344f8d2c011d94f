"""The motion stage: videos in, first frames with maps out; nothing depends on processes or on interruptions."""

from __future__ import annotations

import itertools
import multiprocessing
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.image_cache import shard_file
from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.workdir import clean
from ssltransfer.config.formats import CacheOptions, MotionOptions, Video
from ssltransfer.data import motion as algorithm
from ssltransfer.data.image_cache import read_sample
from ssltransfer.data.targets import read_target
from ssltransfer.data.videos import read_frames
from ssltransfer.stages import cache, motion
from ssltransfer.stages import index as index_stage
from tests.helpers import HELPERS
from toyworld import generate

SMALL = MotionOptions(size=(96, 128), format="raw", foreground_range=(0.01, 0.9))
N = 5


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index of five clips of twelve frames."""
    folder = tmp_path_factory.mktemp("clips")
    generate("clips", folder / "world", split="train", num_images=N, size=64)
    index_stage.run(Video(root=str(folder / "world")), output=folder / "clips.parquet", threads=1)
    return folder / "clips.parquet"


def made(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.suffix in (".parquet", ".shard", ".json", ".tsv")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if ".run." not in file.name}


def run(data: Path, folder: Path, spec: MotionOptions = SMALL, threads: int = 1) -> Path:
    motion.run(spec, data=data, output=folder / "c.parquet", threads=threads)
    return folder / "c.parquet"


def test_motion_packs_first_frames_and_masks(videos: Path, tmp_path: Path):
    index, plain = read_index(run(videos, tmp_path)), read_index(videos)
    assert len(plain) == N and plain.paths[0] == "JPEGImages/480p/train-00000"
    assert index.paths == [f"{path}#0" for path in plain.paths] and index.targets and index.targets.kind == "motion"
    assert (index.sizes == (128, 96)).all() and (index.labels == -1).all() and index.root == plain.root
    assert index.spec == plain.spec | {"motion": {"format": "raw", "foreground_range": [0.01, 0.9], "size": [96, 128]}}
    for sample in (0, 3):
        frames = [algorithm.prepare(frame, SMALL.size) for frame in read_frames(plain.path(sample))][:10]
        assert np.array_equal(read_sample(index, sample).permute(1, 2, 0).numpy(), frames[0])
        gray = list(map(algorithm.gray, frames))
        motions = [algorithm.motion_between(*pair, "dis") for pair in itertools.pairwise(gray)]
        cells = read_target(index, sample)
        assert isinstance(cells, np.ndarray) and cells.shape == (12, 16)
        assert np.array_equal(cells, algorithm.label(gray[0], motions, SMALL))
    some = index.subset(np.array([3, 0]))
    assert np.array_equal(read_target(some, 1), read_target(index, 0))  # type: ignore[arg-type]
    assert some.fingerprint != index.fingerprint


def test_motion_is_independent_of_processes(videos: Path, tmp_path: Path):
    one, three = (run(videos, tmp_path / str(threads), threads=threads).parent for threads in (1, 3))
    assert made(one) == made(three) and len(made(one)) >= 2 + 3 * N


def test_motion_overlapping_clips_share_flow(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counted: list[int] = []
    real = motion.motion_between

    def counting(*given: Any) -> Any:
        counted.append(1)
        return real(*given)

    monkeypatch.setattr(motion, "motion_between", counting)
    wide = {"foreground_range": (0.0, 1.0), "clip_length": 4}
    index = read_index(run(videos, tmp_path, SMALL.model_copy(update=wide | {"clip_stride": 3})))
    assert index.paths[:3] == [f"JPEGImages/480p/train-00000#{start}" for start in (0, 3, 6)]
    assert len(counted) == 11 * N
    counted.clear()
    other = read_index(run(videos, tmp_path / "b", SMALL.model_copy(update=wide | {"clip_stride": 6})))
    assert other.paths[:2] == [f"JPEGImages/480p/train-00000#{start}" for start in (0, 6)]
    assert len(counted) == 6 * N
    both: list[Any] = [read_target(given, given.paths.index(other.paths[1])) for given in (index, other)]
    assert np.array_equal(*both)


class Job:
    """The stage in processes of its own."""

    def __init__(self, folder: Path, data: Path):
        self.folder = folder
        self.given = {"data": str(data), "output": str(folder / "c.parquet"), "spec": SMALL.canonical()}

    def run(self, kill: str = "") -> int | None:
        script = str(HELPERS / "killed_motion.py")
        process = multiprocessing.get_context("forkserver").Process(
            target=runpy.run_path, args=(script, self.given | {"kill": kill})
        )
        process.start()
        process.join(120)
        return process.exitcode


def test_motion_resumes_at_next_shard_when_killed(videos: Path, tmp_path: Path):
    undisturbed = run(videos, tmp_path / "undisturbed").parent
    job = Job(tmp_path / "killed", videos)
    for kill, shards in (("half 1", 1), ("between 2", 3), ("end", N)):
        assert job.run(kill) == -9
        assert not (job.folder / "c.parquet").exists()
        assert len(list(job.folder.rglob("*.shard"))) == shards
    assert job.run() == 0
    assert made(job.folder) == made(undisturbed) and not list(job.folder.rglob("*.partial"))


def test_motion_recomputes_only_truncated_shard(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    output = run(videos, tmp_path)
    before, packed = made(tmp_path), read_index(output).cache
    assert packed is not None
    torn = shard_file(packed.folder, 1)
    torn.write_bytes(torn.read_bytes()[:-7])
    with pytest.raises(ArtifactError, match="missing or truncated; run the stage that packs this dataset again"):
        packed.check()
    labeled: list[Any] = []
    real = motion.label

    def noting(*given: Any) -> Any:
        labeled.append(given)
        return real(*given)

    monkeypatch.setattr(motion, "label", noting)
    run(videos, tmp_path)
    assert made(tmp_path) == before and len(labeled) == 1


def test_motion_lists_skipped_videos(videos: Path, tmp_path: Path):
    root = read_index(videos).root
    mine = tmp_path / "mine"
    shutil.copytree(root / "JPEGImages" / "480p" / "train-00000", mine / "short")
    for file in sorted((mine / "short").iterdir())[9:]:
        file.unlink()
    shutil.copytree(root / "JPEGImages" / "480p" / "train-00001", mine / "good")
    first = sorted((mine / "good").iterdir())[0]
    for place in range(10):
        (mine / "still").mkdir(exist_ok=True)
        shutil.copyfile(first, mine / "still" / f"{place}.jpg")
    (mine / "broken.mp4").write_bytes(b"no video at all")
    index_stage.run(Video(root=str(mine)), output=tmp_path / "v.parquet", threads=1)
    index = read_index(run(tmp_path / "v.parquet", tmp_path / "m"))
    assert index.paths == ["good#0"]
    assert index.skipped == {
        "broken.mp4": "not a video that FFmpeg can open (truncated, damaged or not a video)",
        "short": "has less than the 10 frames of a clip",
        "still#0": "less than 1% of it moves by itself",
    }
    shutil.rmtree(mine / "good")
    (mine / "broken.mp4").unlink()
    index_stage.run(Video(root=str(mine)), output=tmp_path / "v.parquet", threads=1)
    with pytest.raises(ArtifactError, match=r"none of the 2 clips of its 2 videos can be used .*; use other videos"):
        run(tmp_path / "v.parquet", tmp_path / "m2")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("fault", ["changed", "gone"])
def test_motion_refuses_changed_videos(fault: str, threads: int, videos: Path, tmp_path: Path):
    shutil.copytree(read_index(videos).root / "JPEGImages" / "480p", tmp_path / "mine")
    index_stage.run(Video(root=str(tmp_path / "mine")), output=tmp_path / "v.parquet", threads=1)
    frame = tmp_path / "mine" / "train-00002" / "00004.jpg"
    if fault == "changed":
        frame.write_bytes(frame.with_name("00005.jpg").read_bytes())
    else:
        shutil.rmtree(frame.parent)
    said = {"changed": "has changed since the index was made; run the index", "gone": "was readable when the index was"}
    with pytest.raises(ArtifactError, match=f"train-00002: {said[fault]}"):
        run(tmp_path / "v.parquet", tmp_path / "m", threads=threads)
    assert not (tmp_path / "m" / "c.parquet").exists()


def test_motion_refuses_images_and_cached_clips(videos: Path, tmp_path: Path, objects_path: Path):
    with pytest.raises(ArtifactError, match="an index of images; give one of a dataset of format video"):
        run(objects_path, tmp_path)
    clips = run(videos, tmp_path / "m")
    with pytest.raises(ArtifactError, match="is already a cache"):
        cache.run(CacheOptions(), data=clips, output=tmp_path / "cached.parquet", threads=1)


def test_clean_removes_old_motion_results(videos: Path, tmp_path: Path):
    for spec in (SMALL, SMALL.model_copy(update={"clip_length": 9})):
        run(videos, tmp_path / "motion", spec)
    folders = set((tmp_path / "motion" / "work" / "c").iterdir())
    packed = read_index(tmp_path / "motion" / "c.parquet").cache
    assert packed is not None and set(clean(tmp_path)) == folders - {packed.folder} and len(folders) == 2
