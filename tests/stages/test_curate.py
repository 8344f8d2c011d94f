"""The curate stage: a balanced dataset without near duplicates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssltransfer.artifacts.files import ArtifactError, file_digest
from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.outdated import _inputs
from ssltransfer.config.entities import Cluster
from ssltransfer.config.formats import CurateOptions, Folder
from ssltransfer.stages import cluster, curate, label
from ssltransfer.stages.index import list_images
from tests.stages.conftest import StoreMaker

SIZES = [600, 100, 40, 10]


@pytest.fixture
def group() -> np.ndarray:
    """Four groups of very different sizes, shuffled; the last has no near duplicates, the others many."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(4), SIZES))


@pytest.fixture
def clustered(make_features: StoreMaker, tmp_path: Path, group: np.ndarray) -> dict[str, Path]:
    """The inputs of the stage, with one cluster per group at the second level."""
    rng = np.random.default_rng(1)
    x = np.eye(4, 16)[group] * 30 + rng.normal(size=(len(group), 16))
    x[np.flatnonzero(group == 1)[1:]] = x[np.flatnonzero(group == 1)[0]]
    features, index = make_features(x.astype(np.float32))
    spec = Cluster(features="f", data="d", k=8, levels=(4,), init="k-means++", empty_cluster="keep")
    manifest, labels = tmp_path / "cluster/c/manifest.json", tmp_path / "label/c/d.parquet"
    cluster.run(spec, features=features, output=manifest, threads=1)
    label.run(spec="label", cluster=manifest, features=features, index=index, output=labels, threads=1)
    return {"data": index, "cluster": manifest, "labels": labels, "features": features}


def run(inputs: dict[str, Path], output: Path, **options: Any) -> np.ndarray:
    """Ids of the chosen images."""
    curate.run(CurateOptions(cluster="c", **options), output=output, threads=1, **inputs)
    paths = read_index(output).paths
    assert output.with_suffix(".txt").read_text().splitlines() == list(paths)
    return np.array([int(Path(path).stem) for path in paths])


def test_curate_balances_the_groups(clustered: dict[str, Path], tmp_path: Path, group: np.ndarray):
    output = tmp_path / "curate/b.parquet"
    ids = run(clustered, output, num_images=100)
    assert np.bincount(group[ids]).tolist() == [30, 30, 30, 10]
    source, index = read_index(clustered["data"]), read_index(output)
    assert [source.digests[sample] for sample in ids] == list(index.digests)
    assert index.spec["curate"] == {"cluster": "c", "num_images": 100}
    assert _inputs(output) == {
        file_digest(clustered["cluster"])
    }  # so a partial report leaves it out after another clustering
    before = output.read_bytes()
    assert run(clustered, output, num_images=100).tolist() == ids.tolist() and output.read_bytes() == before
    assert run(clustered, output, num_images=100, seed=1).tolist() != ids.tolist()
    assert len(run(clustered, output, num_images=10_000)) == sum(SIZES)


def test_curate_removes_near_duplicates_first(clustered: dict[str, Path], tmp_path: Path, group: np.ndarray):
    output = tmp_path / "curate/b.parquet"
    kept = run(clustered, output, max_similarity=0.9999)
    assert np.bincount(group[kept]).tolist() == [600, 1, 40, 10]
    skipped = read_index(output).skipped
    assert len(skipped) == 99 and set(skipped.values()) == {f"near duplicate of d/{kept[group[kept] == 1][0]}.png"}
    ids = run(clustered, output, max_similarity=0.9999, num_images=91)
    assert np.bincount(group[ids]).tolist() == [40, 1, 40, 10]


def test_curate_list_selects_the_images_of_a_dataset(clustered: dict[str, Path], tmp_path: Path):
    ids = run(clustered, tmp_path / "curate/b.parquet", num_images=50)
    for path in read_index(clustered["data"]).paths:
        (tmp_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / path).touch()
    listed = list_images(Folder(root=str(tmp_path / "images"), include=tmp_path / "curate/b.txt"))
    assert sorted(int(Path(path).stem) for path in listed.paths) == sorted(ids.tolist())


def test_curate_refuses_other_inputs(clustered: dict[str, Path], make_features: StoreMaker, tmp_path: Path):
    output = tmp_path / "curate/b.parquet"
    with pytest.raises(ArtifactError, match="near duplicates are found by --features, which is missing"):
        run({name: path for name, path in clustered.items() if name != "features"}, output, max_similarity=0.9)
    other, _ = make_features(np.ones((750, 16), np.float32), model="1" * 32)
    with pytest.raises(ArtifactError, match=r"not the features of .* \(another model\)"):
        run(clustered | {"features": other}, output, max_similarity=0.9)
    clustered["cluster"].write_text(clustered["cluster"].read_text() + " ")
    with pytest.raises(ArtifactError, match="labels of another clustering than"):
        run(clustered, output, num_images=9)
    with pytest.raises(ValueError, match="give num_images, max_similarity or both"):
        CurateOptions(cluster="c")
