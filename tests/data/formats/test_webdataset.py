"""WebDataset: samples of tar files by their keys, with labels of the files beside the images."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ssltransfer.artifacts.index import read_index
from ssltransfer.config.formats import WebDataset
from ssltransfer.data.formats import LayoutError, find
from ssltransfer.data.image_io import read
from ssltransfer.stages import index as stage


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((12, 12, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def write(shard: Path, files: dict[str, bytes]) -> Path:
    shard.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(shard, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return shard


@pytest.fixture
def root(tmp_path: Path) -> Path:
    number = 0
    for shard in range(2):
        files: dict[str, bytes] = {}
        for _ in range(3):
            content = {"species": ["owl", "ant"][number % 2], "tags": ["a", "b"][: number % 3], "cat": number % 2}
            files |= {f"x/{number:03}.cls": b"%d\n" % (number + 8), f"x/{number:03}.PNG": png(number)}
            files[f"x/{number:03}.json"] = json.dumps(content).encode()
            number += 1
        write(tmp_path / "wds" / f"train-{shard}.tar", files)
    return tmp_path / "wds"


def test_webdataset_lists_samples_with_labels(root: Path) -> None:
    found = find(WebDataset(root=str(root), label="cls"))
    assert found.paths[0] == "train-0.tar/x/000.PNG" and found.paths[-1] == "train-1.tar/x/005.PNG"
    assert found.classes == ["8", "9", "10", "11", "12", "13"] and found.labels == list(range(6))
    found = find(WebDataset(root=str(root), label="json.species"))
    assert found.classes == ["ant", "owl"] and found.labels == [1, 0, 1, 0, 1, 0]
    found = find(WebDataset(root=str(root), labels="json.tags"))
    assert found.classes == ["a", "b"] and found.multi_label is not None
    assert found.multi_label.tolist() == [[-1, -1], [1, -1], [1, 1]] * 2
    found = find(WebDataset(root=str(root), labels=("json.cat",)))
    assert found.multi_label is not None and found.multi_label.ravel().tolist() == [-1, 1] * 3
    assert find(WebDataset(root=str(root))).labels is None


def test_webdataset_index_reads_pixels_in_place(root: Path, tmp_path: Path) -> None:
    stage.run(WebDataset(root=str(root), label="cls", limit=4), output=tmp_path / "i.parquet", threads=2)
    index = read_index(tmp_path / "i.parquet")
    assert len(index) == 4
    for sample, path in enumerate(index.paths):
        assert (read(index.source(sample)) == int(path[-7:-4])).all()


def test_webdataset_root_may_be_one_tar_file(root: Path) -> None:
    found = find(WebDataset(root=str(root / "train-1.tar"), label="cls"))
    assert found.paths == ["x/003.PNG", "x/004.PNG", "x/005.PNG"]
    assert find(WebDataset(root=str(root), shards="train-1*")).paths == [f"train-1.tar/{path}" for path in found.paths]


def test_webdataset_refuses_with_one_sentence(root: Path) -> None:
    with pytest.raises(LayoutError, match=r"no sample has 'json.specie'; did you mean 'json.species'"):
        find(WebDataset(root=str(root), label="json.specie"))
    with pytest.raises(LayoutError, match=r"no file 'val-\*'; set `shards`. It contains: train-0.tar, train-1.tar"):
        find(WebDataset(root=str(root), shards="val-*"))
    with pytest.raises(LayoutError, match=r"000\.PNG: not UTF-8 text"):
        find(WebDataset(root=str(root), label="png"))
    with pytest.raises(LayoutError, match=r"train-1\.tar/x"):
        find(WebDataset(root=str(root / "train-1.tar" / "x")))
    write(root / "two.tar", {"1.jpg": png(1), "1.png": png(1), "1.seg.png": png(2), "2.txt": b"x"})
    with pytest.raises(LayoutError, match=r"two.tar/1: has several images \(jpg, png\); set `image`"):
        find(WebDataset(root=str(root), shards="two.tar"))
    found = find(WebDataset(root=str(root), shards="two.tar", image="png"))
    assert found.paths == ["two.tar/1.png"]
    assert found.skipped == {"two.tar/2": "no image among its files (txt)"}
    with pytest.raises(ValidationError, match="shards"):
        WebDataset(root=str(root), shards=f"{root}/*.tar")
