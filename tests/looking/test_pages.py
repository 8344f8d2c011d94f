"""`ssltransfer look` on real results: images with planted near-duplicates and an outlier."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.artifacts.labels import Labels
from ssltransfer.artifacts.manifest import ClusterManifest
from ssltransfer.cli import main
from ssltransfer.config.entities import Cluster, Features, Pretext
from ssltransfer.config.formats import CurateOptions, Folder
from ssltransfer.errors import UserError
from ssltransfer.looking import pages as pages_module
from ssltransfer.looking.clusterings import clustering_rows
from ssltransfer.looking.pages import look
from ssltransfer.stages import cluster, curate, features, index, label, pretext
from tests.helpers.html_page import Page

NAME = "features of <b>"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, objects: Index) -> Path:
    """Images of two classes, a random network, two clusterings; 3 and 8 have near-duplicates, `odd` is an outlier."""
    root = tmp_path_factory.mktemp("look")
    for sample in range(len(objects)):
        folder = root / "images" / f"class-{sample % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(objects.path(sample)) as image:
            image.convert("RGB").save(folder / f"{sample}.png")
            if sample in (3, 8):
                image.convert("RGB").save(root / "images" / "class-0" / f"copy-of-{sample}.jpg", quality=85)
    Image.new("RGB", (64, 64), "red").save(root / "images" / "class-1" / "odd.png")
    results = root / "results"
    data = results / "index" / "own.parquet"
    index.run(Folder(root=str(root / "images"), labels="folder"), output=data, threads=1)
    model = results / "pretext" / "m" / "manifest.json"
    backbone = {"name": "resnet18", "width_mult": 0.125, "img_size": 64}
    pretext.run(Pretext.model_validate({"task": "random", "backbone": backbone}), output=model, threads=1)
    stored = results / "features" / NAME / "own" / "manifest.json"
    spec = {"model": "m", "layer": "block2", "pool": {"avg": 1}}
    features.run(Features.model_validate(spec), model=model, data=data, output=stored, threads=1)
    for k in (3, 6):
        clustering = results / "cluster" / f"k{k}" / "manifest.json"
        options = Cluster.model_validate({"features": NAME, "data": "own", "k": k})
        cluster.run(options, features=stored, output=clustering, threads=1)
        output = results / "label" / f"k{k}" / "own.parquet"
        label.run(spec="1", cluster=clustering, features=stored, index=data, output=output, threads=1)
    return results


def test_page_of_features(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = results / "features" / NAME / "own"
    assert main(["look", str(stored)]) == 0
    file = results / "report" / "features" / NAME / "own.html"
    assert str(file) in capsys.readouterr().out
    html = file.read_text("utf-8")
    page = Page(html)
    assert page.open == [] and len(page.ids) == len(set(page.ids))
    assert page.sources and all(source.startswith("data:") for source in page.sources)
    assert "<b>" not in html.partition("<h1>")[2].partition("</h1>")[0]
    # The map: all images, colored by class and by both clusterings.
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])  # type: ignore[index]
    assert len(data["x"]) == len(data["y"]) == len(data["paths"]) == 51
    assert [coloring["name"] for coloring in data["colorings"]] == ["class", "k3", "k6"]
    assert data["colorings"][0]["names"] == ["class-0", "class-1"] and len(data["sheets"]) == 1
    # The planted images come first.
    duplicates, _, rest = html.partition('id="duplicates"')[2].partition('id="outliers"')
    groups = [re.findall(r"<li>([^:<]+)", figure) for figure in duplicates.split("<figure>")[1:]]
    assert ["class-0/8.png", "class-0/copy-of-8.jpg"] in groups[:2]
    assert ["class-0/copy-of-3.jpg", "class-1/3.png"] in groups[:2]
    assert duplicates.count("different classes") >= 1
    assert re.findall(r"<br>([^<]+)", rest)[0] == "class-1/odd.png"
    # The clusterings in the order of k.
    rows = re.findall(r'<tr><th scope="row">(k\d)</th><td>(\d)</td>', html)
    assert rows == [("k3", "3"), ("k6", "6")]
    assert file.read_bytes() == look(stored, file.with_name("again.html")).read_bytes()


def test_large_datasets_are_drawn_by_seed(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages_module, "MAPPED", 20)
    monkeypatch.setattr(pages_module, "COMPARED", 30)
    stored = results / "features" / NAME / "own"
    pages = [look(stored, tmp_path / f"{i}.html", seed=seed).read_text("utf-8") for i, seed in enumerate((0, 0, 1))]
    drawn = [json.loads(re.search(r'"paths": (\[.*?\])', html)[1]) for html in pages]  # type: ignore[index]
    assert pages[0] == pages[1] and drawn[0] != drawn[2] and len(set(drawn[0])) == 20
    assert "20 images drawn at random" in pages[0] and "among 30 images drawn at random" in pages[0]
    paths = read_index(results / "index" / "own.parquet").paths
    compared = {paths[sample] for sample in pages_module._draw(51, 30, 0).tolist()}
    duplicates, _, rest = pages[0].partition('id="duplicates"')[2].partition('id="outliers"')
    assert set(re.findall(r"<br>([^<]+)", rest)) == compared
    assert set() < set(re.findall(r"<li>([^:<]+)", duplicates)) <= compared


def test_page_of_a_clustering_and_of_labels(results: Path) -> None:
    file = look(results / "cluster" / "k6")
    assert file == results / "report" / "clusters" / "k6" / "own.html"
    page = Page(file.read_text("utf-8"))
    assert sorted(name for name in page.ids if name.startswith("cluster-")) == [f"cluster-{i}" for i in range(6)]
    assert page.open == [] and len(page.images) == 6
    assert all(source.startswith("data:") for source in page.sources)
    other = look(results / "label" / "k6" / "own.parquet", file.with_name("labels.html"))
    assert other.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("suffix", ["npz", "zarr", "parquet"])
def test_page_of_embeddings(suffix: str, results: Path, tmp_path: Path) -> None:
    embedded = tmp_path / f"own.{suffix}"
    assert main(["embed", str(results / "pretext" / "m"), str(results.parent / "images"), str(embedded)]) == 0
    assert main(["look", str(embedded)]) == 0
    html = (tmp_path / "own.html").read_text("utf-8")
    assert "copy-of-8.jpg" in html.partition('id="duplicates"')[2] and "Clusterings" not in html


def test_page_of_embeddings_shows_images_of_archives(results: Path, tmp_path: Path) -> None:
    packed = shutil.make_archive(str(tmp_path / "photos"), "zip", results.parent / "images")
    sheets = []
    for images in (str(results.parent / "images"), packed):
        embedded = tmp_path / "own.npz"
        assert main(["embed", str(results / "pretext" / "m"), images, str(embedded)]) == 0
        html = look(embedded, tmp_path / "own.html").read_text("utf-8")
        sheets.append(re.search(r'"sheets": (\[.*?\])', html)[1])  # type: ignore[index]
    assert sheets[0] == sheets[1]
    shutil.make_archive(str(tmp_path / "photos"), "zip", results)
    with pytest.raises(UserError, match=r"photos\.zip: has no file class-0/"):
        look(embedded)


def test_page_of_features_of_a_file_on_a_curated_dataset(results: Path, tmp_path: Path) -> None:
    vectors, curated = tmp_path / "vectors.parquet", results / "curate" / "chosen.parquet"
    assert main(["embed", str(results / "pretext" / "m"), str(results.parent / "images"), str(vectors)]) == 0
    curate.run(
        CurateOptions(cluster="k3", num_images=20),
        data=results / "index" / "own.parquet",
        cluster=results / "cluster" / "k3" / "manifest.json",
        labels=results / "label" / "k3" / "own.parquet",
        output=curated,
        threads=1,
    )
    stored = results / "features" / "elsewhere" / "chosen" / "manifest.json"
    features.run(Features.model_validate({"file": str(vectors)}), data=curated, output=stored, threads=1)
    html = look(stored).read_text("utf-8")
    assert f"20 images of chosen: vectors of {vectors}." in html and Page(html).open == []


def test_silhouette_of_spherical_clusters_is_of_directions() -> None:
    """Two directions, of which each has vectors of all lengths."""
    angles, lengths = np.repeat([0.0, 1.5], 8), np.tile(np.geomspace(0.01, 100, 8), 2)
    points = (lengths * np.stack([np.cos(angles), np.sin(angles)])).T.astype(np.float32)
    clusters = np.repeat([0, 1], 8).astype(np.int32)
    labels = Labels([], clusters, np.zeros(16, np.float32), 2, "", "")
    index = Index(Path(), [], np.full(16, -1, np.int32), [], np.zeros((16, 2), np.int32), [])
    content: dict[str, object] = {
        "centroids": "",
        "index": "",
        "model": "",
        "layer": "",
        "layer_shape": [2],
        "pool": None,
    }
    content |= {"points": 16, "sizes": [8, 8], "objective": 0, "iterations": 1, "stopped": "", "path": "x", "stage": ""}
    spec = Cluster(features="f", data="d", k=2, spherical=True)
    manifest = ClusterManifest.model_validate(content | {"spec": spec})
    (row,) = clustering_rows([("c", manifest, labels)], index, np.arange(16), points)
    assert row.silhouette == pytest.approx(1)


def test_wrong_inputs_are_refused(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored, damaged = results / "features" / NAME / "own", tmp_path / "x.parquet"
    damaged.write_bytes(b"x")
    (tmp_path / "metrics.json").write_text('{"stage": "evaluate"}')
    for given, message in (
        ([str(tmp_path / "metrics.json")], "nothing to look at"),
        ([str(results / "none")], "missing"),
        ([str(damaged)], "not a parquet file"),
        ([str(results / "index" / "own.parquet")], "not a file of labels"),
        ([str(stored), str(results / "cluster" / "k3"), "--html", "x.html"], "name one result"),
    ):
        assert main(["look", *given]) == 1
        assert message in capsys.readouterr().err
    data = results / "index" / "own.parquet"
    moved = data.rename(data.with_suffix(".moved"))
    try:
        assert main(["look", str(stored)]) == 1
        assert "its images changed since; run the pipeline again" in capsys.readouterr().err
    finally:
        moved.rename(data)
