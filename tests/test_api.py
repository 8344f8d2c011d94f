"""Models from Python and by commands, as a user calls them; equal to what the stages make."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssltransfer
from ssltransfer.api import Embeddings
from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import read_index
from ssltransfer.cli import main
from ssltransfer.config.entities import Cluster, Features, Pretext
from ssltransfer.models.backbone import LayerError
from ssltransfer.stages import cluster, features, label, pretext

SPEC = Features.model_validate({"model": "jigsawpp", "layer": "block4", "pool": {"avg": 1}, "precision": "float32"})


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, objects_path: Path) -> Path:
    """A folder of results: a model, its features of `objects`, a clustering of them and labels."""
    root = tmp_path_factory.mktemp("use") / "results" / "demo"
    model = root / "pretext" / "jigsawpp" / "manifest.json"
    backbone = {"name": "resnet18", "width_mult": 0.125, "img_size": 64}
    pretext.run(Pretext.model_validate({"task": "random", "backbone": backbone}), output=model, threads=1)
    stored = root / "features" / "jigsawpp-block3" / "scenes-train" / "manifest.json"
    features.run(SPEC, model=model, data=objects_path, output=stored, threads=1)
    clustering = root / "cluster" / "jigsawpp-k40" / "manifest.json"
    spec = Cluster.model_validate({"features": "jigsawpp-block3", "data": "scenes-train", "k": 3})
    cluster.run(spec, features=stored, output=clustering, threads=1)
    label.run(spec="1", cluster=clustering, features=stored, index=objects_path, output=root / "l.parquet", threads=1)
    return root


def test_embeddings_are_those_of_the_features_stage(results: Path, objects_path: Path, tmp_path: Path) -> None:
    index = read_index(objects_path)
    model = ssltransfer.load_model(results / "pretext" / "jigsawpp")
    stored = ssltransfer.open_features(results / "features" / "jigsawpp-block3" / "scenes-train" / "manifest.json")
    expected = stored.read(slice(0, len(index)))
    by_file = model.embed([index.path(i) for i in range(len(index))], layer="block4", threads=1)
    assert np.array_equal(by_file.vectors, expected)
    by_folder = model.embed(index.root, layer="block4", pool={"avg": 1}, threads=1)
    order = [by_folder.paths.index(path) for path in index.paths]
    assert np.array_equal(by_folder.vectors[order], expected)
    assert model.layers[-1] == "pool" and model.embed([index.path(0)]).about["pool"] is None
    for suffix in ("parquet", "npz", "zarr", "zarr"):
        by_folder.save(tmp_path / f"e.{suffix}")
        read = Embeddings.load(tmp_path / f"e.{suffix}")
        assert read.paths == by_folder.paths and np.array_equal(read.vectors, by_folder.vectors)
        assert (read.root, read.about) == (by_folder.root, by_folder.about)


def test_archives_are_embedded_like_their_folder(results: Path, objects_path: Path, tmp_path: Path) -> None:
    root, model = read_index(objects_path).root, ssltransfer.load_model(results / "pretext" / "jigsawpp")
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(root, "set")
    plain, packed = (model.embed(images, layer="block2", threads=1) for images in (root, tmp_path / "set.tar" / "set"))
    assert packed.paths == plain.paths and np.array_equal(packed.vectors, plain.vectors)
    packed.save(tmp_path / "e.npz")
    image, strip = str(root / plain.paths[3]), tmp_path / "s.html"
    assert main(["search", str(tmp_path / "e.npz"), image, "-k", "2", "--html", str(strip)]) == 0
    query, nearest = re.findall(r'src="([^"]+)"', strip.read_text())[:2]
    assert query == nearest, "the thumbnail of the image itself, read from the archive"


def test_assignments_are_those_of_the_label_stage(results: Path, objects_path: Path, tmp_path: Path) -> None:
    index, labels = read_index(objects_path), ssltransfer.read_labels(results / "l.parquet")
    found = ssltransfer.assign(results / "cluster" / "jigsawpp-k40", index.root, threads=1)
    order = [found.paths.index(path) for path in index.paths]
    assert np.array_equal(found.clusters[order], labels.labels)
    assert np.array_equal(found.distances[order], labels.distances)
    found.save(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == found.paths
    assert [int(row["cluster"]) for row in rows] == found.clusters.tolist()
    assert np.float32(rows[0]["distance"]) == found.distances[0]


def test_commands_embed_assign_and_search(
    results: Path, objects_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = read_index(objects_path)
    image, embedded = str(index.path(7)), str(tmp_path / "e.npz")
    assert main(["embed", str(results / "pretext" / "jigsawpp"), str(index.root), embedded, "--layer", "block2"]) == 0
    assert main(["search", embedded, image, "-k", "3", "--html", str(tmp_path / "s.html")]) == 0
    assert main(["assign", str(results / "cluster" / "jigsawpp-k40"), str(index.root), str(tmp_path / "a.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{embedded}: {len(index)} images, 16 dimensions of block2" in lines
    assert f"1.0000  {index.paths[7]}" in lines, "the image itself is the most similar one"
    assert f"{tmp_path / 'a.csv'}: {len(index)} images in 3 clusters" in lines
    assert (tmp_path / "s.html").read_text().count('<img src="data:image/jpeg') == 4


def test_unreadable_images_of_a_folder_are_skipped(results: Path, objects_path: Path, tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(read_index(objects_path).path(0).read_bytes())
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    found = ssltransfer.load_model(results / "pretext" / "jigsawpp").embed(tmp_path)
    assert found.paths == ["good.jpg"] and list(found.skipped) == ["bad.jpg"]


def test_wrong_inputs_are_refused(results: Path, objects_path: Path, tmp_path: Path) -> None:
    model, image = ssltransfer.load_model(results / "pretext" / "jigsawpp"), read_index(objects_path).path(0)
    with pytest.raises(ArtifactError, match=rf"no such file; did you mean '{image.name}'"):
        model.embed([f"{image}x"])
    with pytest.raises(LayerError, match="no layer 'blok2'"):
        model.embed([image], layer="blok2")
    with pytest.raises(ArtifactError, match=r"use \.parquet, \.npz or \.zarr"):
        model.embed([image]).save(tmp_path / "e.csv")
    with pytest.raises(ArtifactError, match="write it with `ssltransfer embed`"):
        ssltransfer.search(tmp_path / "e.npz", image)
    with pytest.raises(ArtifactError, match="not a file of `ssltransfer embed`"):
        (tmp_path / "e.npz").write_bytes(b"x")
        ssltransfer.search(tmp_path / "e.npz", image)
    with pytest.raises(ArtifactError, match=r"is not in .*; name its manifest"):
        (results / "pretext" / "jigsawpp").rename(results / "elsewhere")
        try:
            ssltransfer.assign(results / "cluster" / "jigsawpp-k40", [image])
        finally:
            (results / "elsewhere").rename(results / "pretext" / "jigsawpp")


def test_python_of_the_page_runs(results: Path, objects_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, folder = read_index(objects_path), results.parents[1]
    (results / "index").mkdir()
    shutil.copy(objects_path, results / "index" / "scenes-train.parquet")
    shutil.copytree(index.root, folder / "photos")
    shutil.copy(index.path(0), folder / "cat.jpg")
    page = (Path(__file__).parents[1] / "docs" / "use.md").read_text("utf-8")
    code = textwrap.dedent(page.partition("## Python")[2].partition("`dir(")[0])
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["photos"].vectors.shape == (len(index), 128 // 2)
    exec("".join(re.findall(r"^    (.*\n|)", page.partition("## Training code")[2], re.MULTILINE)), names)
    assert names["student"].grad.shape == (16, 512)


def test_package_lists_its_names_and_imports_torch_late() -> None:
    assert {"load_model", "cluster", "read_metrics", "search"} <= set(dir(ssltransfer))
    assert all(getattr(ssltransfer, name) is not None for name in dir(ssltransfer))
    with pytest.raises(AttributeError, match="no attribute 'load'"):
        ssltransfer.load  # noqa: B018
    code = "import sys, ssltransfer; assert 'load_model' in dir(ssltransfer); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
