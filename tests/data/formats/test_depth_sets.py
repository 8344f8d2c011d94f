"""Sets of rooms with depth, in files made here in the published form."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ssltransfer.artifacts.index import read_index
from ssltransfer.config.formats import FastDepth, NyuDepthV2, Rgbd, Synthetic
from ssltransfer.data.formats import LayoutError, find
from ssltransfer.data.image_io import read
from ssltransfer.data.targets import read_target
from ssltransfer.stages.index import run as make_index
from toyworld import generate

ROOT = Path(__file__).parents[3]
SPLITS = {"train": [1, 4], "test": [2, 3, 5]}


def nyu(root: Path, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Five frames as MATLAB keeps them; images (N, H, W, 3) and meters (N, H, W) as they are meant."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (5, 24, 32, 3), np.uint8)
    depths = rng.uniform(0.7, 9.9, (5, 24, 32)).astype(np.float32)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        file["images"] = images.transpose(0, 3, 2, 1)
        file["depths"] = depths.transpose(0, 2, 1)
    savemat(root / "splits.mat", {f"{name}Ndxs": np.array([n]).T for name, n in SPLITS.items()})
    return images, depths


@pytest.mark.parametrize("split", ["train", "test"])
def test_nyu_frames_are_preserved(tmp_path: Path, split: str) -> None:
    images, depths = nyu(tmp_path)
    make_index(NyuDepthV2(root=str(tmp_path), split=split), output=tmp_path / "i.parquet", threads=1)
    index = read_index(tmp_path / "i.parquet")
    assert index.paths == [f"rgb/{number:05d}.png" for number in SPLITS[split]]
    for sample, number in enumerate(SPLITS[split]):
        assert np.array_equal(read(index.path(sample)).permute(1, 2, 0).numpy(), images[number - 1])
        depth = read_target(index, sample)
        assert isinstance(depth, np.ndarray) and np.array_equal(depth, depths[number - 1])


def test_nyu_is_read_while_another_process_locks_it(tmp_path: Path) -> None:
    """Locks belong to open files, so that a second one in this process is like one of another."""
    nyu(tmp_path)
    file = tmp_path / "nyu_depth_v2_labeled.mat"
    with file.open("rb") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match="unable to lock file"):
            h5py.File(file, "r")
        assert len(find(NyuDepthV2(root=str(tmp_path), split="train")).paths) == 2
        # The variable, which HDF5 reads once, has precedence.
        code = (
            f"from tests.data.formats.test_depth_sets import *; find(NyuDepthV2(root={str(tmp_path)!r}, split='test'))"
        )
        environment = {**os.environ, "HDF5_USE_FILE_LOCKING": "TRUE", "PYTHONPATH": os.pathsep.join(sys.path)}
        run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, text=True, stderr=subprocess.PIPE)
    assert "locked by another process; set HDF5_USE_FILE_LOCKING=FALSE." in run.stderr.splitlines()[-1]


def test_nyu_export_needs_no_archive_and_restarts_when_killed(tmp_path: Path) -> None:
    nyu(tmp_path)
    leftover = tmp_path / "nyu-depth-v2-png" / ".train.partial" / "rgb" / "99999.png"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    spec = NyuDepthV2(root=str(tmp_path), split="train")
    before = find(spec)
    assert len(before.paths) == 2 and not leftover.parent.parent.exists()
    (tmp_path / "nyu_depth_v2_labeled.mat").unlink()
    assert find(spec) == before
    assert find(spec.model_copy(update={"targets": None})).targets is None
    with pytest.raises(LayoutError, match=r"nyu_depth_v2_labeled.mat: missing; `root` must hold"):
        find(NyuDepthV2(root=str(tmp_path), split="test"))


def test_nyu_reports_damaged_files_without_partial_output(tmp_path: Path) -> None:
    spec = NyuDepthV2(root=str(tmp_path), split="train")
    with pytest.raises(LayoutError, match="missing; `root` must hold"):
        find(spec)
    with pytest.raises(LayoutError, match="no such folder"):
        find(NyuDepthV2(root=str(tmp_path / "nowhere"), split="train"))
    nyu(tmp_path)
    whole = (tmp_path / "nyu_depth_v2_labeled.mat").read_bytes()
    (tmp_path / "nyu_depth_v2_labeled.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LayoutError, match=r"nyu_depth_v2_labeled.mat: cannot be read \("):
        find(spec)
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"], file["depths"] = np.zeros((3, 3, 32, 24), np.uint8), np.zeros((3, 24, 32), np.float32)
    with pytest.raises(LayoutError, match="are not images of three bytes per pixel and their depth"):
        find(spec)
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"], file["depths"] = np.zeros((3, 3, 32, 24), np.uint8), np.ones((3, 32, 24), np.float32)
    with pytest.raises(LayoutError, match=r"splits.mat: lists frame 4 of 3"):
        find(spec)
    savemat(tmp_path / "splits.mat", {"other": [1]})
    with pytest.raises(LayoutError, match=r"splits.mat: has no trainNdxs"):
        find(spec)
    assert not (tmp_path / "nyu-depth-v2-png" / "train").exists()


def test_fastdepth_frames_are_preserved(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    frames = {}
    for name in ("a_room/00002", "a_room/00001", "b.room/1"):
        file = tmp_path / "train" / f"{name}.h5"
        file.parent.mkdir(parents=True, exist_ok=True)
        frames[name] = rng.integers(0, 256, (3, 20, 24), np.uint8), rng.uniform(0, 9, (20, 24)).astype(np.float32)
        with h5py.File(file, "w") as content:
            content["rgb"], content["depth"] = frames[name]
    make_index(FastDepth(root=str(tmp_path), split="train"), output=tmp_path / "i.parquet", threads=1)
    index = read_index(tmp_path / "i.parquet")
    assert index.paths == [f"rgb/{name}.png" for name in sorted(frames)]
    for sample, name in enumerate(sorted(frames)):
        assert np.array_equal(read(index.path(sample)).numpy(), frames[name][0])
        depth = read_target(index, sample)
        assert isinstance(depth, np.ndarray) and np.array_equal(depth, frames[name][1])
    with pytest.raises(LayoutError, match=r"val: contains no .h5 files"):
        find(FastDepth(root=str(tmp_path), split="val"))


def test_rgbd_list_gives_listed_pairs(tmp_path: Path) -> None:
    generate("rgbd", tmp_path / "rgbd-48px-seed0-n3", split="train", num_images=3, size=48)
    listed = find(Rgbd(root=str(tmp_path / "rgbd-48px-seed0-n3"), split="train"))
    world = find(Synthetic(root=str(tmp_path), subset="rgbd", split="train", num_images=3, size=48, targets="depth"))
    assert world.targets is not None and listed.targets is not None
    assert [listed.root / path for path in listed.paths] == [world.root / path for path in world.paths]
    assert [listed.root / path for path in listed.targets] == [world.root / path for path in world.targets]


def test_rgbd_list_may_have_a_byte_order_mark_and_blanks(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("rgb/1.png depth/1.png\nrgb/IMG 2.png\tdepth/IMG 2.png\n", "utf-8-sig")
    found = find(Rgbd(root=str(tmp_path), split="train"))
    assert found.paths == ["rgb/1.png", "rgb/IMG 2.png"]
    assert found.targets == ["depth/1.png", "depth/IMG 2.png"]


def test_index_skips_invalid_depth_maps(tmp_path: Path) -> None:
    fine = np.full((16, 20), 2500, np.uint16)
    fine[0, :3] = 0, 65535, 65534
    Image.fromarray(fine).save(tmp_path / "fine.png")
    Image.fromarray(np.zeros((16, 20), np.uint16)).save(tmp_path / "empty.png")
    Image.fromarray(np.full((16, 20), 65535, np.uint16)).save(tmp_path / "full.png")
    for name, value in (("nan", np.nan), ("negative", -1.0), ("infinite", np.inf)):
        depth = np.ones((16, 20), np.float32)
        depth[3, 4] = value
        np.save(tmp_path / f"{name}.npy", depth)
    np.save(tmp_path / "small.npy", np.ones((8, 20), np.float32))
    names = ["fine.png", "empty.png", "full.png", "nan.npy", "negative.npy", "infinite.npy", "small.npy", "gone.png"]
    for place in range(len(names)):
        Image.fromarray(np.full((16, 20, 3), place, np.uint8)).save(tmp_path / f"{place}.jpg")
    lines = [f"{place}.jpg {name}" for place, name in enumerate(names)]
    (tmp_path / "test.txt").write_text("# image depth\n" + "\n".join([*lines, "", "gone.jpg fine.png"]) + "\n")
    spec = Rgbd(root=str(tmp_path), split="test", max_corrupt_fraction=1.0)
    make_index(spec, output=tmp_path / "i.parquet", threads=1)
    index = read_index(tmp_path / "i.parquet")
    assert index.paths == ["0.jpg"]
    found = read_target(index, 0)
    assert isinstance(found, np.ndarray)
    assert found[0, :4].tolist() == pytest.approx([0, 0, 65.534, 2.5])
    assert {path: reason.split(" (")[0] for path, reason in index.skipped.items() if path != "gone.jpg"} == {
        "1.jpg": "depth map has no value anywhere",
        "2.jpg": "depth map has no value anywhere",
        **dict.fromkeys(["3.jpg", "4.jpg", "5.jpg"], "depth map contains values that are not distances"),
        "6.jpg": "depth map of 20 x 8 pixels, the image has 20 x 16",
        "7.jpg": "gone.png is missing",
    }
    assert "gone.jpg" in index.skipped


def test_rgbd_list_refuses_invalid_lists(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"train.txt: missing; available: no lists"):
        find(Rgbd(root=str(tmp_path), split="train"))
    (tmp_path / "train.txt").write_text("1305031102.17 rgb/1.png 1305031102.16 depth/1.png\n")
    with pytest.raises(LayoutError, match=r"train.txt: line 1 is not an image and a depth map"):
        find(Rgbd(root=str(tmp_path), split="train"))


def test_depth_sets_have_published_sizes() -> None:
    assert (
        NyuDepthV2(root="x", split="train").estimated_num_images == 795
        and NyuDepthV2(root="x", split="test").estimated_num_images == 654
    )
    assert (
        FastDepth(root="x", split="train").estimated_num_images == 47_584
        and FastDepth(root="x", split="val").estimated_num_images == 654
    )
    assert NyuDepthV2(root="x", split="train").label_type == "none"
    assert NyuDepthV2(root="x", split="train").canonical() == '{"format":"nyu-depth-v2","root":"x","split":"train"}'


@pytest.mark.real
def test_depth_sets_read_real_frames(real_data: Path, kitchen: Path, tmp_path: Path) -> None:
    layout = real_data / "rgbd" / "nyu_layout"
    for split, n in (("train", 44), ("test", 12)):
        make_index(Rgbd(root=str(kitchen), split=split), output=tmp_path / f"{split}.parquet", threads=1)
        assert len(read_index(tmp_path / f"{split}.parquet")) == n
    known = [np.asarray(Image.open(file)) / np.float32(1000) for file in kitchen.glob("frames/*.depth.png")]
    (tmp_path / "nyu_depth_v2_labeled.mat").symlink_to(layout / "nyu_depth_v2_labeled_like.mat")
    savemat(tmp_path / "splits.mat", {"trainNdxs": [[1], [2], [4]], "testNdxs": [[3]]})
    make_index(NyuDepthV2(root=str(tmp_path), split="train"), output=tmp_path / "nyu.parquet", threads=1)
    index = read_index(tmp_path / "nyu.parquet")
    assert index.paths == ["rgb/00001.png", "rgb/00002.png", "rgb/00004.png"]
    assert (index.sizes == [640, 480]).all()
    for sample in range(3):
        depth = np.asarray(read_target(index, sample))
        # The file's depths are filled in where the sensor had no value.
        agree = [np.isclose(depth, other, atol=2e-3)[other > 0].mean() for other in known]
        assert max(agree) > 0.99
    (tmp_path / "val").symlink_to(layout / "fastdepth_like" / "val")
    make_index(FastDepth(root=str(tmp_path), split="val"), output=tmp_path / "fast.parquet", threads=1)
    assert len(read_index(tmp_path / "fast.parquet")) == 2
