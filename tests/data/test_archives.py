"""Tar and zip archives: read in place, they give what the folder gives; others are refused with one sentence."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.config.formats import CacheOptions, Folder, ImageFolder
from ssltransfer.data.archives import ArchiveError, list_archive
from ssltransfer.data.formats import LayoutError, find
from ssltransfer.data.image_cache import read_sample
from ssltransfer.data.image_io import CorruptImageError, read
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.report.thumbnails import thumbnail, thumbnail_source
from ssltransfer.stages import cache as cache_stage
from ssltransfer.stages import index as stage

NAMES = ["Ant/deep/1.png", "Ant/2.jpg", "bee x/é 3.png", "bee x/it's.bmp", "top.png", "cow/4.jpg", "cow/5.png"]
CODES = {
    "stored.zip": zipfile.ZIP_STORED,
    "deflated.zip": zipfile.ZIP_DEFLATED,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    for seed, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 20 + seed, 3), np.uint8)
        Image.fromarray(pixels).save(root / name)
    for name in ("cow/notes.txt", "cow/.hidden.png", ".git/6.png", "__MACOSX/cow/._4.jpg", "Ant/empty.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"" if name.endswith("empty.png") else b"text")
    (root / "cow/broken.jpg").write_bytes((root / "cow/4.jpg").read_bytes()[:200])
    return root


def packed(folder: Path, name: str, top: str = "") -> Path:
    """An archive of the folder's content, beside it; `top` is a folder around it."""
    archive = folder.with_name(name)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", CODES[name]) as content:
            for file in sorted(folder.rglob("*"), reverse=True):
                content.write(file, top + file.relative_to(folder).as_posix())
    else:
        with tarfile.open(archive, "w") as tar:
            tar.add(folder, top or ".")
    return archive


def made(root: Path, output: Path) -> Index:
    stage.run(Folder(root=str(root), labels="folder"), output=output, threads=2)
    return read_index(output)


@pytest.mark.parametrize("name", ["set.tar", *CODES])
@pytest.mark.parametrize("top", ["", "birds/all/"])
def test_archive_of_a_folder_gives_its_index_pixels_and_batches(folder: Path, name: str, top: str) -> None:
    plain = made(folder, folder.parent / "plain.parquet")
    archive = packed(folder, name, top)
    index = made(archive / top if top else archive, folder.parent / "packed.parquet")
    assert index.paths == plain.paths and index.classes == ["Ant", "bee x", "cow"]
    assert np.array_equal(index.labels, plain.labels) and index.digests == plain.digests
    assert index.fingerprint == plain.fingerprint and index.skipped == plain.skipped
    assert index.skipped["__MACOSX/"] == "metadata of macOS" and index.skipped["Ant/empty.png"] == "empty file"
    folder.rename(folder.with_name("gone"))  # only the archive is read
    shuffled = index.subset(np.array([4, 0, 2]))
    assert np.array_equal(read(shuffled.source(1)), read(index.source(0)))
    crop = ResizeCenterCrop(16, 16)
    batches = list(load_batches(index, crop, sequential_keys(range(len(index)), 4), seed=0, workers=1))
    folder.with_name("gone").rename(folder)
    for ours, theirs in zip(
        batches, load_batches(plain, crop, sequential_keys(range(len(plain)), 4), seed=0), strict=True
    ):
        assert np.array_equal(ours.images, theirs.images)
    assert np.array_equal(thumbnail(thumbnail_source(index, 2)), thumbnail(plain.path(2)))


def test_cache_of_an_archive_has_the_bytes_of_the_folder(folder: Path) -> None:
    out = folder.parent
    made(folder, out / "a" / "set.parquet")
    made(packed(folder, "set.tar"), out / "b" / "set.parquet")
    for name in ("a", "b"):
        cache_stage.run(
            CacheOptions(short_side=16), data=out / name / "set.parquet", output=out / name / "c.parquet", threads=1
        )
    plain, ours = (read_index(out / name / "c.parquet") for name in ("a", "b"))
    assert plain.fingerprint == ours.fingerprint and ours.members is not None
    assert np.array_equal(read_sample(plain, 3), read_sample(ours, 3))
    folder.with_name("set.tar").unlink()
    assert len(list(load_batches(ours, ResizeCenterCrop(16, 16), sequential_keys([0], 1), seed=0))) == 1


def test_changed_archive_is_refused_before_work_starts(folder: Path) -> None:
    archive = packed(folder, "set.tar")
    index = made(archive, folder.parent / "i.parquet")
    with archive.open("ab") as file:
        file.write(b"\0" * 512)
    with pytest.raises(ArtifactError, match=r"set.tar: is missing or has changed since the index was made"):
        next(iter(load_batches(index, ResizeCenterCrop(16, 16), sequential_keys([0], 1), seed=0)))


def test_split_is_a_folder_of_the_archive(folder: Path) -> None:
    archive = packed(folder, "set.tar", "train")
    found = find(ImageFolder(root=str(archive), split="train"))
    assert found.classes == ["Ant", "bee x", "cow"] and found.root == archive / "train"
    with pytest.raises(LayoutError, match="no split 'test'; available: train"):
        find(ImageFolder(root=str(archive), split="test"))
    with pytest.raises(LayoutError, match="has no folder 'trian'; did you mean 'train'"):
        find(Folder(root=str(archive / "trian")))
    assert find(Folder(root=str(archive), labels="folder")).notes == [
        f"{archive}: the only class is 'train'; if its folders are the classes, add /train to root."
    ]


def test_tar_links_and_repeated_names_are_as_tar_unpacks_them(folder: Path) -> None:
    os.link(folder / "cow/5.png", folder / "cow/6.png")
    (folder / "cow/7.png").symlink_to("5.png")
    archive = packed(folder, "set.tar")
    with tarfile.open(archive, "a") as tar:
        tar.add(folder / "cow/5.png", "./Ant/deep/1.png")
    listing = list_archive(archive)
    assert listing.files["cow/6.png"] == listing.files["cow/5.png"] and listing.links == ["cow/7.png"]
    assert listing.read("Ant/deep/1.png") == (folder / "cow/5.png").read_bytes()
    assert "a link inside an archive" in find(Folder(root=str(archive))).skipped["cow/7.png"]


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
def test_gnu_tar_with_long_names(folder: Path) -> None:
    long = folder / ("d" * 120) / ("ü" * 60 + ".png")
    long.parent.mkdir()
    shutil.copy(folder / "top.png", long)
    archive = folder.with_name("gnu.tar")
    subprocess.run(["tar", "-cf", archive, "-C", folder, "."], check=True)
    assert find(Folder(root=str(archive))).paths == find(Folder(root=str(folder))).paths


def test_compressed_encrypted_and_damaged_archives_are_refused(folder: Path) -> None:
    archive = packed(folder, "set.tar")
    content = archive.read_bytes()
    with tarfile.open(archive) as tar:
        hole = tar.getmembers()[4].offset
    cases = {
        "set.tar.gz": (gzip.compress(content), r"compressed as a whole.*`gzip -d`"),
        "cut.tar": (content[: hole + 700], "cannot be read as a tar or zip archive"),
        "text.tar": (b"hello " * 200, "cannot be read as a tar or zip archive"),
        "hole.tar": (content[:hole] + b"x" * 512 + content[hole + 512 :], "cannot be read as a tar or zip archive"),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as zipped:
        zipped.writestr("a.png", b"x" * 100)
    cases["lzma.zip"] = (out.getvalue(), "a.png is compressed in a way .*`zip -0 -r`")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as zipped:
        zipped.writestr("a.png", b"x")
    for name, field, value, match in (
        ("encrypted.zip", 8, 1, "a.png is encrypted"),
        ("newer.zip", 6, 99, "cannot be read as a tar or zip archive .zip file version"),
    ):
        changed = bytearray(out.getvalue())
        changed[changed.index(b"PK\1\2") + field] = value
        cases[name] = (bytes(changed), match)
    for name, (data, match) in cases.items():
        (folder.parent / name).write_bytes(data)
        with pytest.raises(ArchiveError, match=match) as refusal:
            list_archive(folder.parent / name)
        assert "\n" not in str(refusal.value)
        with pytest.raises(LayoutError, match=match):
            find(Folder(root=str(folder.parent / name)))


def test_tar_that_ends_with_a_zip_is_a_tar(folder: Path) -> None:
    with zipfile.ZipFile(folder / "zzz.zip", "w") as inner:
        inner.writestr("inner.png", b"x")
    archive = folder.with_name("set.tar")
    with tarfile.open(archive, "w") as tar:
        tar.add(folder / "top.png", "top.png")
        tar.add(folder / "zzz.zip", "zzz.zip")
    assert list(list_archive(archive).files) == ["top.png", "zzz.zip"]


def test_replaced_archive_is_read_anew(folder: Path) -> None:
    archive = packed(folder, "set.tar")
    before = list_archive(archive).read("top.png")
    shutil.copy(folder / "cow/5.png", folder / "top.png")
    archive.rename(archive.with_name("old.tar"))
    assert packed(folder, "set.tar") == archive
    after = list_archive(archive).read("top.png")
    assert after == (folder / "top.png").read_bytes() != before


def test_damaged_deflated_member_is_skipped(folder: Path) -> None:
    archive = packed(folder, "deflated.zip")
    found = find(Folder(root=str(archive)))
    position = found.paths.index("bee x/it's.bmp")
    assert found.members is not None
    _, offset, size, deflated = found.members.rows[position].tolist()
    assert deflated
    with archive.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)
    with pytest.raises(CorruptImageError, match="damaged in its archive"):
        read(found.source(position))


def test_zip_of_macos_keeps_names_in_utf8(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("cafe/XX.png", b"x")
    # macOS writes UTF-8 without declaring it.
    (tmp_path / "m.zip").write_bytes(content.getvalue().replace(b"XX", "é".encode()))
    assert list(list_archive(tmp_path / "m.zip").files) == ["cafe/é.png"]
