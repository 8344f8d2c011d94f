from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ssltransfer.artifacts import image_cache as artifact
from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.image_cache import shard_file
from ssltransfer.artifacts.index import Index, read_index, write_index
from ssltransfer.artifacts.workdir import clean
from ssltransfer.config.formats import CacheOptions, Synthetic
from ssltransfer.data.image_io import read
from ssltransfer.stages import cache
from ssltransfer.stages import index as index_stage
from tests.helpers import HELPERS

# Children are forks of a server that has torch loaded, so that a kill costs no start; said before anything starts it.
multiprocessing.set_forkserver_preload(["ssltransfer.stages.features", "ssltransfer.stages.pretext"])

RAW = CacheOptions(format="raw", short_side=48)
SHARD = 10 * 48 * 48 * 3  # bytes: ten images


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "SMALLEST_SHARD_BYTES", SHARD)


def made(folder: Path) -> dict[str, bytes]:
    """All that a cache is, by name."""
    files = [file for file in folder.rglob("*") if file.suffix in (".parquet", ".shard", ".json", ".tsv")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if ".run." not in file.name}


def test_cache_adds_pixels_to_index(small_shards: None, tmp_path: Path, objects_path: Path):
    output = tmp_path / "cache" / "objects.parquet"
    cache.run(RAW, data=objects_path, output=output, threads=1)
    plain, cached = read_index(objects_path), read_index(output)
    assert cached.paths == plain.paths and cached.digests == plain.digests and cached.classes == plain.classes
    assert np.array_equal(cached.labels, plain.labels) and np.array_equal(cached.sizes, plain.sizes)
    assert cached.skipped == plain.skipped and cached.root == plain.root
    assert cached.spec == plain.spec | {"cache": {"format": "raw", "short_side": 48}}
    assert cached.fingerprint != plain.fingerprint and cached.num_shared_with(plain) == len(plain)
    assert cached.cache is not None
    assert [size for size, _ in cached.cache.shards] == [SHARD] * 4 + [SHARD * 8 // 10]


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_cache_is_independent_of_processes(
    form: Any, tmp_path: Path, objects_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(artifact, "SMALLEST_SHARD_BYTES", SHARD // 8)
    found = []
    for threads in (1, 2, 4):
        output = tmp_path / str(threads) / "objects.parquet"
        cache.run(CacheOptions(format=form, short_side=48), data=objects_path, output=output, threads=threads)
        found.append(made(output.parent))
    assert found[0] == found[1] == found[2] and len(found[0]) >= 2 + 2 * 8


class Job:
    """A cache in processes of its own."""

    def __init__(self, folder: Path, data: Path):
        self.context = multiprocessing.get_context("forkserver")
        self.folder, self.log = folder, folder.with_suffix(".log")
        self.given = {"data": str(data), "output": str(folder / "objects.parquet"), "log": str(self.log)}
        self.given |= {"spec": RAW.canonical()}

    def run(self, kill: str = "") -> int | None:
        given = self.given | {"kill": kill, "threads": 1, "shard_bytes": SHARD}
        script = str(HELPERS / "killed_cache.py")
        process = self.context.Process(target=runpy.run_path, args=(script, given))
        process.start()
        process.join(120)
        return process.exitcode


def test_cache_resumes_at_next_shard_when_killed(tmp_path: Path, objects_path: Path):
    undisturbed = Job(tmp_path / "undisturbed", objects_path)
    assert undisturbed.run() == 0
    assert undisturbed.log.read_text().split() == ["0", "1", "2", "3", "4"]

    job = Job(tmp_path / "killed", objects_path)
    for kill in ("after 0", "half 1", "between 2", "end"):
        assert job.run(kill) == -9
        assert not (job.folder / "objects.parquet").exists()
    assert job.run() == 0
    # Only the shard that was cut in half and the one without a table were recomputed.
    assert job.log.read_text().split() == ["0", "1", "1", "2", "2", "3", "4"]
    assert made(job.folder) == made(undisturbed.folder)
    assert not list(job.folder.rglob("*.partial"))


@pytest.mark.slow
def test_cache_can_rerun_immediately_when_killed(tmp_path: Path):
    """No process of the killed one keeps the lock, and none lives on."""
    spec = Synthetic(root=str(tmp_path / "world"), subset="objects", split="train", num_images=400, size=64)
    index_stage.run(spec, output=tmp_path / "objects.parquet", threads=1)
    words = ["cache", "--spec", '{"format": "raw", "short_side": 60}', "--data", str(tmp_path / "objects.parquet")]
    code = (
        "import sys; from ssltransfer.artifacts import image_cache; image_cache.SMALLEST_SHARD_BYTES = 200_000; "
        "from ssltransfer.cli import main; sys.exit(main(sys.argv[1:]))"
    )

    def command(name: str) -> list[str]:
        return [sys.executable, "-c", code, *words, "--output", str(tmp_path / name / "o.parquet"), "--threads", "3"]

    subprocess.run(command("undisturbed"), check=True)
    process = subprocess.Popen(command("killed"))
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").rglob("*.shard")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.002)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(command("killed"), check=True)
    assert made(tmp_path / "killed") == made(tmp_path / "undisturbed")
    assert not psutil.wait_procs(children, 30)[1]


def test_cache_repacks_truncated_or_foreign_shard(small_shards: None, tmp_path: Path, objects_path: Path):
    output = tmp_path / "objects.parquet"
    cache.run(RAW, data=objects_path, output=output, threads=1)
    before, packed = made(tmp_path), read_index(output).cache
    assert packed is not None
    torn, foreign = shard_file(packed.folder, 1), shard_file(packed.folder, 3)
    torn.write_bytes(torn.read_bytes()[:-7])
    foreign.write_bytes(shard_file(packed.folder, 0).read_bytes())
    output.unlink()
    cache.run(RAW, data=objects_path, output=output, threads=1)
    assert made(tmp_path) == before


def copied(index: Index, folder: Path) -> Path:
    """The first images of an index, as files of one's own."""
    names = [Path(path).name for path in index.paths[:6]]
    for sample, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(index.path(sample).read_bytes())
    mine = Index(folder, names, index.labels[:6], index.classes, index.sizes[:6], index.digests[:6])
    write_index(folder / "mine.parquet", mine)
    return folder / "mine.parquet"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("another", "has changed since the index was made; run the index stage again."),
        ("gone", "was readable when the index was made and no longer is (cannot be opened"),
        ("broken", "was readable when the index was made and no longer is"),
    ],
)
def test_cache_refuses_changed_images(
    fault: str, said: str, threads: int, tmp_path: Path, objects: Index, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(artifact, "SMALLEST_SHARD_BYTES", 1)
    data = copied(objects, tmp_path / "mine")
    image = read_index(data).path(4)
    if fault == "another":
        image.write_bytes(read_index(data).path(3).read_bytes())
    elif fault == "gone":
        image.unlink()
    else:
        image.write_bytes(image.read_bytes()[:40])
    with pytest.raises(ArtifactError) as caught:
        cache.run(RAW, data=data, output=tmp_path / "c.parquet", threads=threads)
    assert str(caught.value).startswith(str(image)) and said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "c.parquet").exists()


def test_cache_refuses_too_small_disk_before_writing(small_disk: Path, objects_path: Path):
    index = read_index(objects_path)
    many = Index(
        index.root,
        list(index.paths) * 3,
        np.tile(index.labels, 3),
        index.classes,
        np.tile(index.sizes, (3, 1)),
        list(index.digests) * 3,
    )
    write_index(small_disk / "many.parquet", many)
    with pytest.raises(ArtifactError, match=r"the disk cannot hold the images: 1\.8 MB to write .* 1\.0 MB free"):
        options = CacheOptions(format="raw", short_side=64)
        cache.run(options, data=small_disk / "many.parquet", output=small_disk / "c.parquet", threads=1)
    assert not list(small_disk.rglob("*.shard"))


def test_cache_refuses_cached_index(tmp_path: Path, objects_path: Path):
    cache.run(RAW, data=objects_path, output=tmp_path / "one.parquet", threads=1)
    with pytest.raises(ArtifactError, match="is already a cache"):
        cache.run(RAW, data=tmp_path / "one.parquet", output=tmp_path / "two.parquet", threads=1)


def test_clean_removes_old_caches(tmp_path: Path, objects_path: Path):
    output = tmp_path / "cache" / "a.b.parquet"
    for options in (RAW, CacheOptions(short_side=32)):
        cache.run(options, data=objects_path, output=output, threads=1)
    folders = set((tmp_path / "cache" / "work" / "a.b").iterdir())
    packed = read_index(output).cache
    assert packed is not None and packed.folder in folders and len(folders) == 2
    assert set(clean(tmp_path)) == folders - {packed.folder}
    assert json.loads((tmp_path / "cache" / "a.b.run.json").read_text())["work"] == packed.folder.name


def test_cache_prints_expected_size(tmp_path: Path, objects_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "ssltransfer")
    cache.run(RAW, data=objects_path, output=tmp_path / "c.parquet", threads=1)
    assert "48 images, 1 of 1 shards to make: 0.3 MB to write (3.00 bytes per pixel)" in caplog.text
    assert read(read_index(objects_path).path(0)).shape == (3, 64, 64)  # 48 x 48 x 48 x 3 bytes
