"""The feature store: a chunk is whole or missing, whoever was killed, and never belongs to other images."""

import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from ssltransfer.artifacts import features
from ssltransfer.artifacts.features import FeatureStore, Writer, open_features
from ssltransfer.artifacts.files import ArtifactError, file_digest, write_json

N, DIMS = 10, 8
VALUES = np.random.default_rng(0).standard_normal((N, DIMS)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows a chunk: the last one holds two."""
    monkeypatch.setattr(features, "CHUNK_BYTES", 4 * DIMS * 4)


def filled(path: Path, chunks: list[int], *, compression: str | None = None) -> FeatureStore:
    store = FeatureStore.create(path, N, DIMS, "float32", compression=compression)
    for chunk in chunks:
        store.write(chunk, VALUES[store.span(chunk)])
    return store


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_feature_store_round_trip(tmp_path: Path, compression: str | None) -> None:
    filled(tmp_path / "s", [2, 0, 1], compression=compression)
    store = FeatureStore.open(tmp_path / "s")
    assert (store.shape, store.rows, store.chunks, store.missing()) == ((N, DIMS), 4, 3, [])
    assert np.array_equal(store.read(slice(0, N)), VALUES)
    assert np.array_equal(store.read(slice(3, 9)), VALUES[3:9])
    for rows in (None, 1, 3, 100):
        spans, blocks = zip(*store.blocks(rows), strict=True)
        assert np.array_equal(np.concatenate(blocks), VALUES)
        assert [row for span in spans for row in range(span.start, span.stop)] == list(range(N))
        assert max(map(len, blocks)) <= min(rows or 4, 4)


@pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")
def test_store_is_a_group_with_named_rows(tmp_path: Path) -> None:
    """What `xarray.open_zarr` reads: a group, dimension names, coordinates, and the metadata of all arrays in one."""
    store, paths = filled(tmp_path / "s", [0, 1, 2]), [f"größe/{i}.jpg" for i in range(N)]
    for _ in range(2):
        store.describe(paths, np.arange(N) - 1, {"model": "m", "layer": "pool", "classes": ["a"]})
        files = {file: file.read_bytes() for file in sorted(store.path.rglob("*")) if file.is_file()}
    assert FeatureStore.open(store.path).description() == (paths, dict(zarr.open_group(store.path, mode="r").attrs))
    group = zarr.open_consolidated(store.path, mode="r")
    assert dict(group.attrs) == {"model": "m", "layer": "pool", "classes": ["a"]}
    arrays: dict[str, Any] = dict(group.arrays())
    assert {name: array.metadata.dimension_names for name, array in arrays.items()} == {
        "features": ("sample", "dimension"),
        "path": ("sample",),
        "label": ("sample",),
    }
    assert np.array_equal(arrays["features"][:], VALUES)
    assert arrays["path"][:].tolist() == paths and arrays["label"][:].tolist() == list(range(-1, N - 1))
    assert arrays["features"].attrs["coordinates"].split() == ["path", "label"]
    store.describe(paths, np.arange(N) - 1, {"model": "m", "layer": "pool", "classes": ["a"]})
    assert {file: file.read_bytes() for file in sorted(store.path.rglob("*")) if file.is_file()} == files


def test_description_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "PIECE", 4)
    store, paths = filled(tmp_path / "s", [0, 1, 2]), [str(i) for i in range(N)]
    with pytest.raises(ArtifactError, match="has no paths"):
        store.description()
    store.describe(paths, np.zeros(N), {})
    assert store.description() == (paths, {})


def test_missing_chunk_reads_as_nan_and_is_refused(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", [0, 2])
    assert store.missing() == [1]
    assert np.isnan(store.read(store.span(1))).all()
    assert np.array_equal(store.read(store.span(2)), VALUES[8:])
    with pytest.raises(ArtifactError, match="chunk 1 is missing; run the features stage again"):
        store.digests()


def test_write_stores_constant_chunk(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", [0, 1])
    store.write(2, np.full((2, DIMS), np.nan, np.float32))
    store.write(1, np.zeros((4, DIMS), np.float32))
    assert store.missing() == []


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_truncated_chunk_is_missing_or_refused(tmp_path: Path, compression: str | None) -> None:
    store = filled(tmp_path / "s", [0, 1, 2], compression=compression)
    file = store.chunk_file(1)
    whole = file.read_bytes()
    file.write_bytes(b"")
    assert store.missing() == [1]
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="rows 4 to 8 are damaged"):
        store.read(store.span(1))
    assert store.missing() == ([] if compression else [1])
    store.write(1, VALUES[4:8])
    assert np.array_equal(store.read(slice(0, N)), VALUES)


def test_digests_equal_file_digests(tmp_path: Path) -> None:
    one, two = filled(tmp_path / "a", [0, 1, 2]), filled(tmp_path / "b", [1, 2, 0])
    assert one.digests() == two.digests() == [file_digest(one.chunk_file(chunk)) for chunk in range(3)]
    two.write(1, VALUES[4:8] + 1)
    assert [mine == other for mine, other in zip(one.digests(), two.digests(), strict=True)] == [True, False, True]
    assert one.digests() != two.digests()


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from zarr.storage import _local
from ssltransfer.artifacts.features import FeatureStore
store = FeatureStore.open(Path(sys.argv[1]))
if sys.argv[2] == "before the rename":
    Path.replace = lambda *_: os.kill(os.getpid(), 9)
else:
    def torn(path, value, exclusive=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _local._atomic_write(path, "wb") as file:
            file.write(bytes(20))
            file.flush()
            os.kill(os.getpid(), 9)
    _local._put = torn
store.write(1, np.ones((4, 8), np.float32))
"""


@pytest.mark.parametrize("where", ["while writing", "before the rename"])
def test_write_leaves_no_truncated_chunk_when_killed(tmp_path: Path, where: str) -> None:
    store = filled(tmp_path / "s", [0, 2])
    done = subprocess.run([sys.executable, "-c", KILLED, str(store.path), where], check=False)
    assert done.returncode == -signal.SIGKILL
    leftovers = list(store.chunk_file(1).parent.iterdir())
    assert len(leftovers) == 1
    assert leftovers[0].suffix == ".partial"
    assert store.missing() == [1]
    store.write(1, VALUES[4:8])
    assert [file.name for file in store.chunk_file(1).parent.iterdir()] == ["0"]
    assert np.array_equal(store.read(slice(0, N)), VALUES)


def test_missing_does_not_disturb_writers(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", [0, 2])
    store.chunk_file(1).parent.mkdir()
    underway = store.chunk_file(1).with_suffix(".0123.partial")
    underway.write_bytes(b"half")
    assert store.missing() == [1]
    store.write(0, VALUES[:4])
    assert underway.exists()


def _write(path: Path, chunks: list[int]) -> None:
    features.CHUNK_BYTES = 4 * DIMS * 4
    for _ in range(20):
        filled(path, chunks)


def test_write_supports_concurrent_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path / "s", chunks)) for chunks in ([0, 2], [1])]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    store = FeatureStore.open(tmp_path / "s")
    assert store.missing() == []
    assert np.array_equal(store.read(slice(0, N)), VALUES)


def test_write_reports_full_disk_without_truncated_chunk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "CHUNK_BYTES", 600_000)
    store = FeatureStore.create(small_disk / "s", 3000, 100, "float32")
    values = np.ones((1500, 100), np.float32)
    store.write(0, values)
    with pytest.raises(ArtifactError, match="the disk is full; free some space and run the same command again"):
        store.write(1, values)
    assert store.missing() == [1]
    assert [path for path in store.path.rglob("*") if path.is_file() and path.name not in ("zarr.json", "0")] == []
    with pytest.raises(ArtifactError, match="the disk is full"):
        write_json(small_disk / "manifest.json", ["x" * 1000] * 1000)
    assert np.array_equal(store.read(store.span(0)), values)


@pytest.mark.parametrize("after", [0, 1, 2], ids=["at the end", "while one waits", "while more is made"])
def test_writer_reports_full_disk_with_next_chunk(
    after: int, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer's thread has no one to tell: the error comes with the next chunk, or at the end."""
    monkeypatch.setattr(features, "CHUNK_BYTES", 600_000)
    store = FeatureStore.create(small_disk / "s", 6000, 100, "float32")
    values = np.ones((1500, 100), np.float32)
    told = 0
    with pytest.raises(ArtifactError, match="the disk is full; free some space"), Writer(store) as writer:
        for chunk in range(2 + after):
            writer.write(chunk, values)
            told = chunk
    assert told <= 2  # at most one was taken after the one that failed
    assert 0 not in store.missing() and {1, 2, 3} <= set(store.missing())


def test_writer_writes_all_chunks(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s", N, DIMS, "float32")
    with Writer(store) as writer:
        for chunk in range(3):
            writer.write(chunk, VALUES[store.span(chunk)])
    assert store.missing() == [] and np.array_equal(store.read(slice(0, N)), VALUES)
    assert 0 <= writer.waiting <= 1


@pytest.mark.parametrize("content", [None, "", '{"zarr_format": 3', "{}"])
def test_open_reports_missing_store(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "zarr.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"no feature store; run the features stage|zarr.json is damaged"):
        FeatureStore.open(tmp_path)


def test_open_refuses_other_shape(tmp_path: Path) -> None:
    filled(tmp_path / "s", [])
    for shape, dtype in (((N, DIMS + 1), "float32"), ((N + 1, DIMS), "float32"), ((N, DIMS), "float16")):
        with pytest.raises(ArtifactError, match=r"contains \(10, 8\) float32, not"):
            FeatureStore.create(tmp_path / "s", *shape, dtype)


def test_open_features_refuses_other_inputs(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    store = filled(tmp_path / "work" / "k1" / "features.zarr", [0, 1, 2])
    content = {"stage": "features", "work": "k1", "index": "f1" * 16, "chunks": store.digests()}
    source = {"spec": {"model": "m", "layer": "conv4"}, "model": "0" * 32, "layer": "conv4", "layer_shape": [DIMS]}
    write_json(manifest, content | source)
    opened, read = open_features(manifest, index="f1" * 16)
    assert read.chunks == store.digests() and read.spec.layer == "conv4"
    assert np.array_equal(opened.read(slice(0, N)), VALUES)
    with pytest.raises(ArtifactError, match=r"belong to another index \(f1f1f1f1, not f2f2f2f2\); run the features"):
        open_features(manifest, index="f2" * 16)
    store.chunk_file(2).unlink()
    with pytest.raises(ArtifactError, match=r"1 of 3 chunks are missing; remove .* run the features stage again"):
        open_features(manifest, index="f1" * 16)
    write_json(manifest, {"stage": "cluster"})
    with pytest.raises(ArtifactError, match="not a manifest of the features stage"):
        open_features(manifest)
