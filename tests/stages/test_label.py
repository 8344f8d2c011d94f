"""Labels are those of the nearest centroid, of the right features, or there are none."""

import json

import numpy as np
import pytest
from scipy.spatial import KDTree

from ssltransfer.artifacts.files import ArtifactError, file_digest, write_json
from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.labels import read_labels
from ssltransfer.config.entities import Cluster
from ssltransfer.stages import cluster, label


@pytest.fixture
def clustering(make_features, tmp_path):
    """clustering(**options) -> manifest of 20 clusters in 6 dimensions."""

    def make(**options):
        rng = np.random.default_rng(0)
        features, _ = make_features(rng.normal(size=(500, 6)).astype(np.float32), "clustered")
        output = tmp_path / "cluster" / "manifest.json"
        spec = Cluster(features="f", data="clustered", k=20, **options)
        cluster.run(spec, features=features, output=output, threads=1)
        return output

    return make


def labeled(manifest, features, index, output):
    label.run(spec="label", cluster=manifest, features=features, index=index, output=output, threads=1)
    return read_labels(output)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_label_other_dataset_by_nearest_centroid(clustering, make_features, tmp_path, dtype):
    x = np.random.default_rng(1).normal(size=(3000, 6)).astype(dtype)
    features, index = make_features(x, "other")
    manifest = clustering()
    found = labeled(manifest, features, index, tmp_path / "other.parquet")
    distances, labels = KDTree(np.load(manifest.parent / "centroids.npy")).query(x.astype(np.float64))
    assert (found.labels == labels).all()
    np.testing.assert_allclose(found.distances, distances**2, rtol=1e-5)
    assert found.k == 20
    assert found.sizes.sum() == 3000
    assert found.paths == read_index(index).paths
    assert found.cluster == file_digest(manifest)
    found.check(read_index(index), tmp_path)


def test_label_clustered_dataset_matches_sizes(clustering, make_features, tmp_path):
    manifest = clustering()
    folder = tmp_path / "features" / "f" / "clustered" / "manifest.json"
    found = labeled(manifest, folder, tmp_path / "index" / "clustered.parquet", tmp_path / "l.parquet")
    content = json.loads(manifest.read_text())
    assert found.sizes.tolist() == content["sizes"]
    assert found.distances.sum(dtype=np.float64) == pytest.approx(content["objective"], rel=1e-9)


@pytest.mark.parametrize("option", ["l2_normalize", "spherical"])
def test_label_normalizes_as_clustering(clustering, make_features, tmp_path, option):
    x = np.random.default_rng(2).normal(size=(300, 6)).astype(np.float32) * 50
    features, index = make_features(x, "other")
    manifest = clustering(**{option: True})
    found = labeled(manifest, features, index, tmp_path / "l.parquet")
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    distances, labels = KDTree(np.load(manifest.parent / "centroids.npy")).query(unit)
    assert (found.labels == labels).all()
    np.testing.assert_allclose(found.distances, distances**2, rtol=1e-4)


def test_label_ties_go_to_lowest_cluster(clustering, make_features, tmp_path):
    manifest = clustering()
    file = manifest.parent / "centroids.npy"
    centroids = np.zeros((20, 6), np.float32)
    centroids[:, 0] = np.tile([1, -1, 3, 3], 5)
    np.save(file, centroids)
    write_json(manifest, json.loads(manifest.read_text()) | {"centroids": file_digest(file)})
    x = np.zeros((3, 6), np.float32)
    x[:, 0] = [0, 3, -2]  # between 0 and 1; on 2, 3, 6 and others; next to 1, 5 and others
    features, index = make_features(x, "other")
    found = labeled(manifest, features, index, tmp_path / "l.parquet")
    assert found.labels.tolist() == [0, 2, 1]
    assert found.distances.tolist() == [1, 0, 1]


def test_label_is_deterministic(clustering, make_features, tmp_path):
    features, index = make_features(np.random.default_rng(3).normal(size=(800, 6)).astype(np.float16), "other")
    manifest = clustering()
    for name in "ab":
        labeled(manifest, features, index, tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "1" * 32}, "another model"),
        ({"layer": "conv5"}, "another layer"),
        ({"layer_shape": [3, 2, 1]}, "another layer_shape"),
        ({"spec": {"model": "m", "layer": "conv4", "pool": {"avg": 2}}}, "another pool"),
    ],
)
def test_label_refuses_features_of_another_backbone(clustering, make_features, tmp_path, changed, said):
    features, index = make_features(np.ones((9, 6), np.float32), "other", **changed)
    output = tmp_path / "l.parquet"
    with pytest.raises(ArtifactError, match=rf"features of another backbone .*\({said}\)"):
        labeled(clustering(), features, index, output)
    assert not output.exists()


def test_label_refuses_bad_input(clustering, make_features, tmp_path):
    manifest, output = clustering(), tmp_path / "l.parquet"
    x = np.ones((9, 6), np.float32)
    features, index = make_features(x, "other")
    _, stranger = make_features(x, "stranger")
    with pytest.raises(ArtifactError, match="these features belong to another index"):
        labeled(manifest, features, stranger, output)
    with pytest.raises(ArtifactError, match="not a manifest of the cluster stage"):
        labeled(features, features, index, output)
    x[4, 4] = np.nan
    broken, index_of_broken = make_features(x, "broken")
    with pytest.raises(ArtifactError, match="sample 4 has a feature that is not a finite number"):
        labeled(manifest, broken, index_of_broken, output)
    np.save(manifest.parent / "centroids.npy", np.zeros((20, 6), np.float32))
    with pytest.raises(ArtifactError, match="not the file of"):
        labeled(manifest, features, index, output)
    assert not output.exists()
