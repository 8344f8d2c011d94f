"""Videos: files and folders give the same frames; what is broken is said."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssltransfer.config.formats import MotionOptions, Video
from ssltransfer.data import motion
from ssltransfer.data.formats import LayoutError, find
from ssltransfer.data.image_io import CorruptImageError
from ssltransfer.data.videos import check_video, frame_files, opencv, read_frames, video_digest

RNG = np.random.default_rng(0)
FRAMES = [np.kron(RNG.integers(0, 255, (6, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(12)]


def written(path: Path, frames: list[np.ndarray] = FRAMES) -> Path:
    """A video of a code that keeps each frame by itself."""
    cv2 = opencv()
    height, width = frames[0].shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    code = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), 10.0, (width, height))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def folder(path: Path, frames: list[np.ndarray] = FRAMES) -> Path:
    path.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"frame{number}.png")
    return path


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_read_frames_of_a_file(suffix: str, tmp_path: Path):
    path = written(tmp_path / f"a{suffix}")
    found = list(read_frames(path))
    assert len(found) == len(FRAMES) and found[0].dtype == np.uint8
    assert np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(found, FRAMES, strict=True)]) < 12
    checked = check_video(path)
    assert (checked.width, checked.height) == (128, 96) and checked.digest == video_digest(path)


def test_read_frames_of_a_folder_by_number(tmp_path: Path):
    path = folder(tmp_path / "clip")
    assert [file.name for file in frame_files(path)][8:] == [f"frame{n}.png" for n in (8, 9, 10, 11)]
    assert all(np.array_equal(a, b) for a, b in zip(read_frames(path), FRAMES, strict=True))
    before = check_video(path).digest
    assert before == video_digest(path)
    (path / "frame3.png").rename(path / "frame12.png")
    assert video_digest(path) != before


def faulty(kind: str, path: Path) -> Path:
    if kind in ("truncated", "headless", "empty", "text"):
        file = written(path / "a.avi" if kind == "truncated" else path / "a.mp4")
        data = file.read_bytes()
        contents = {
            "truncated": data[: len(data) // 2],
            "headless": data[: len(data) // 2],
            "empty": b"",
            "text": b"x" * 99,
        }
        file.write_bytes(contents[kind])
        return file
    clip = folder(path / "clip")
    if kind == "broken":
        (clip / "frame4.png").write_bytes((clip / "frame4.png").read_bytes()[:60])
    else:
        Image.fromarray(FRAMES[0][:32]).save(clip / "frame4.png")
    return clip


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("truncated", "truncated or damaged: .* of 12 frames can be decoded"),
        ("headless", "not a video that FFmpeg can open"),
        ("empty", "empty file"),
        ("text", "not a video that FFmpeg can open"),
        ("broken", "frame4.png: "),
        ("size", "frame4.png: 128x32, the frames before have 128x96"),
    ],
)
def test_check_video_refuses_broken_files(kind: str, said: str, tmp_path: Path):
    path = faulty(kind, tmp_path)
    with pytest.raises(CorruptImageError, match=said):
        check_video(path)
    with pytest.raises(CorruptImageError, match=said):
        list(read_frames(path))


def test_check_video_refuses_a_named_pipe(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(CorruptImageError, match="not a file"):
        check_video(tmp_path / "pipe.mp4")


def test_videos_are_found_at_any_depth(tmp_path: Path):
    written(tmp_path / "b" / "c" / "2.MP4".lower())
    written(tmp_path / "1.avi")
    folder(tmp_path / "b" / "clip")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "cover.png").write_bytes(b"x")
    (tmp_path / ".hidden.mp4").write_bytes(b"x")
    found = find(Video(root=str(tmp_path)))
    assert found.paths == ["1.avi", "b/c/2.mp4", "b/clip"]
    assert found.skipped == {
        "notes.txt": "not a video's file name",
        "cover.png": "an image outside a folder of frames",
        ".hidden.mp4": "hidden file",
    }


def davis(root: Path) -> None:
    for clip in ("dog", "car"):
        for kind in ("JPEGImages", "Annotations"):
            folder(root / kind / "480p" / clip, FRAMES[:2])
    lists = root / "ImageSets" / "480p"
    lists.mkdir(parents=True)
    lines = [f"/JPEGImages/480p/dog/frame{n}.png /Annotations/480p/dog/frame{n}.png\n" for n in (0, 1)]
    (lists / "val.txt").write_text("".join(lines))
    (lists / "plain.txt").write_text("car\ndog\n")
    (lists / "wrong.txt").write_text("cat\n")


def test_davis_ignores_masks_and_reads_lists(tmp_path: Path):
    davis(tmp_path)
    assert find(Video(root=str(tmp_path))).paths == ["JPEGImages/480p/car", "JPEGImages/480p/dog"]
    assert find(Video(root=str(tmp_path), split="val")).paths == ["JPEGImages/480p/dog"]
    assert len(find(Video(root=str(tmp_path), split="plain")).paths) == 2
    with pytest.raises(LayoutError, match=r"wrong.txt: 1 of its 1 clips are not below .* \(the first: cat\)"):
        find(Video(root=str(tmp_path), split="wrong"))
    with pytest.raises(LayoutError, match=r"no such list \(available: plain, val, wrong\)"):
        find(Video(root=str(tmp_path), split="train"))


def test_video_lists_may_have_a_byte_order_mark_and_blanks(tmp_path: Path):
    davis(tmp_path)
    folder(tmp_path / "JPEGImages/480p/two dogs", FRAMES[:2])
    (tmp_path / "ImageSets/480p/train.txt").write_text("dog\ntwo dogs\n", "utf-8-sig")
    found = find(Video(root=str(tmp_path), split="train"))
    assert found.paths == ["JPEGImages/480p/dog", "JPEGImages/480p/two dogs"]


def test_videos_report_empty_folder(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(LayoutError, match=r"no videos found: neither files \(\.avi, .*\) nor folders of frames\.$"):
        find(Video(root=str(tmp_path)))
    with pytest.raises(LayoutError, match="no such folder"):
        find(Video(root=str(tmp_path / "nowhere")))


@pytest.mark.real
def test_read_frames_of_real_files_match_folders(real_data: Path):
    """The dog as frames, as MPEG-4 and as Motion JPEG: as many frames, and nearly the same cells."""
    options = MotionOptions()
    root = real_data / "video"
    found = {}
    for path in (
        root / "DAVIS/JPEGImages/480p/dog",
        root / "encoded/dog_24f_427x240.mp4",
        root / "encoded/dog_24f_427x240.avi",
    ):
        frames = list(read_frames(path))
        assert len(frames) == 24
        gray = [motion.gray(motion.prepare(frame, options.size)) for frame in frames[:10]]
        pairs = itertools.pairwise(gray)
        found[path.suffix] = motion.label(gray[0], [motion.motion_between(*pair, "dis") for pair in pairs], options)
    for suffix in (".mp4", ".avi"):
        both = (found[""] & found[suffix]).sum() / (found[""] | found[suffix]).sum()
        print(suffix, both)
        assert both > 0.7


@pytest.mark.real
def test_index_skips_truncated_real_file(real_data: Path, tmp_path: Path):
    for name in ("dog_24f_427x240.mp4", "dog_24f_427x240.avi"):
        cut = tmp_path / name
        shutil.copyfile(real_data / "video" / "encoded" / name, cut)
        cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 2 // 3])
        with pytest.raises(CorruptImageError):
            check_video(cut)
