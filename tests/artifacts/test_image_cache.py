from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssltransfer.artifacts import image_cache as artifact
from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.image_cache import ImageCache, cut, read_shard, shard_file, table_file, write_shard
from ssltransfer.artifacts.index import Index, read_index, write_index
from ssltransfer.config.formats import CacheOptions

IMAGES = [(b"first", 2, 3), (b"", 0, 0), (b"\0second" * 9, 5, 7), (b"\xff", 1, 1)]


@pytest.fixture
def packed(tmp_path: Path) -> ImageCache:
    """Two shards of four images each."""
    folder = tmp_path / "work" / "d" / "key"
    shards = [write_shard(folder, 0, IMAGES), write_shard(folder, 1, IMAGES[::-1])]
    rows = np.concatenate([shard.rows for shard in shards])
    return ImageCache(folder, CacheOptions(), [(shard.size, shard.digest) for shard in shards], rows)


def test_read_returns_images_by_sample(packed: ImageCache):
    packed.check()
    for sample, (data, width, height) in enumerate([*IMAGES, *IMAGES[::-1]]):
        assert packed.read(sample) == data
        assert (packed.rows[sample]["cached_width"], packed.rows[sample]["cached_height"]) == (width, height)
    content = b"".join(data for data, _, _ in IMAGES)
    assert shard_file(packed.folder, 0).read_bytes() == content


def test_packed_pickles_without_open_files(packed: ImageCache):
    packed.read(0)
    other = pickle.loads(pickle.dumps(packed))
    assert other.read(4) == packed.read(4) == b"\xff"


@pytest.mark.parametrize("fault", ["torn", "gone", "flipped", "foreign"])
def test_read_refuses_faulty_shard(packed: ImageCache, fault: str):
    path = shard_file(packed.folder, 0)
    content = bytearray(path.read_bytes())
    if fault == "torn":
        path.write_bytes(content[:-1])
    elif fault == "gone":
        path.unlink()
    elif fault == "flipped":
        content[2] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(shard_file(packed.folder, 1).read_bytes())
    if fault in ("torn", "gone"):
        with pytest.raises(ArtifactError, match=r"00000\.shard: missing or truncated; run the stage that packs"):
            packed.check()
    else:
        packed.check()  # of its full length
        with pytest.raises(ArtifactError, match=r"00000\.shard: truncated, damaged or of other images; run the stage"):
            packed.read(0)
    assert read_shard(packed.folder, 0, len(IMAGES)) is None
    assert read_shard(packed.folder, 1, len(IMAGES)) is not None


def test_finished_shard_is_reused_only_unchanged(packed: ImageCache):
    again = read_shard(packed.folder, 1, len(IMAGES))
    assert again is not None and (again.size, again.digest) == packed.shards[1]
    assert np.array_equal(again.rows, packed.rows[4:])
    assert read_shard(packed.folder, 1, len(IMAGES) + 1) is None
    assert read_shard(packed.folder, 2, 0) is None
    table_file(packed.folder, 1).write_text('{"size": 3}')
    assert read_shard(packed.folder, 1, len(IMAGES)) is None
    table_file(packed.folder, 1).unlink()
    assert read_shard(packed.folder, 1, len(IMAGES)) is None


def test_write_shard_leaves_no_shard_on_full_disk(small_disk: Path):
    with pytest.raises(ArtifactError, match="the disk is full; free some space and run the same command again"):
        write_shard(small_disk, 0, ((bytes(100_000), 1, 1) for _ in range(20)))
    assert not [file for file in small_disk.rglob("*") if file.is_file()]


@pytest.mark.parametrize(("n", "each"), [(1, 10.0), (7, 3.0), (1000, 1.5), (5000, 40.0)])
def test_shards_divide_images_in_order(n: int, each: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(artifact, "SMALLEST_SHARD_BYTES", 100)
    monkeypatch.setattr(artifact, "SHARD_BYTES", 5000)
    expected = each * np.random.default_rng(n).uniform(0.5, 2, n)
    spans = cut(expected)
    assert [sample for span in spans for sample in span] == list(range(n)) and all(spans)
    sizes = [expected[span.start : span.stop].sum() for span in spans]
    target = min(5000, max(100, expected.sum() / 16))
    assert all(abs(size - target) <= expected.max() for size in sizes[:-1])


def test_shards_give_large_image_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(artifact, "SMALLEST_SHARD_BYTES", 100)
    monkeypatch.setattr(artifact, "SHARD_BYTES", 100)
    assert cut(np.array([40.0, 350.0, 90.0, 5.0])) == [range(0, 2), range(2, 3), range(3, 4)]


def test_index_with_cache_can_be_moved(index: Index, packed: ImageCache, tmp_path: Path):
    cached = replace(index, cache=replace(packed, rows=packed.rows[:3]))
    write_index(tmp_path / "d.parquet", cached)
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    again = read_index(moved / "d.parquet")
    assert again.cache is not None and np.array_equal(again.cache.rows, packed.rows[:3])
    assert again.cache.shards == packed.shards and again.cache.options == packed.options
    assert [again.cache.read(sample) for sample in range(3)] == [data for data, _, _ in IMAGES[:3]]
    assert again.paths == index.paths and again.skipped == index.skipped and again.notes == index.notes
    assert again.fingerprint == cached.fingerprint


def test_fingerprint_depends_on_cache_options(index: Index, packed: ImageCache):
    same = replace(packed, folder=Path("elsewhere"))
    others = [
        replace(packed, options=CacheOptions(short_side=128)),
        replace(packed, shards=[(1, "0"), packed.shards[1]]),
        None,
    ]
    mine = replace(index, cache=packed).fingerprint
    assert replace(index, cache=same).fingerprint == mine
    assert len({mine, *(replace(index, cache=other).fingerprint for other in others)}) == 4
