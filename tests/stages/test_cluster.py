"""The cluster stage: what it writes and what it refuses."""

import json

import numpy as np
import pytest
from sklearn.cluster import KMeans

from ssltransfer.artifacts.files import ArtifactError, file_digest
from ssltransfer.artifacts.manifest import ClusterManifest, read_manifest
from ssltransfer.config.entities import Cluster
from ssltransfer.kmeans import ArraySource, kmeans, lloyd
from ssltransfer.stages import cluster
from ssltransfer.training.devices import Devices
from tests.helpers.pretended_cuda import CUDA, on_gpu


def blobs(n=900, dims=12, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(15, dims))[rng.integers(15, size=n)] * 3 + rng.normal(size=(n, dims))).astype(np.float16)


def spec(**options):
    return Cluster(**({"features": "f", "data": "d", "k": 10} | options))


def test_cluster_outputs_are_consistent(make_features, tmp_path):
    x = blobs()
    features, _ = make_features(x)
    output = tmp_path / "cluster" / "c" / "manifest.json"
    cluster.run(spec(tolerance=0), features=features, output=output, threads=1)
    manifest = json.loads(output.read_text())
    centroids = np.load(output.parent / "centroids.npy")
    curve = [json.loads(line) for line in (output.parent / "curve.jsonl").read_text().splitlines()]
    assert centroids.dtype == np.float32
    assert centroids.shape == (10, 12)
    distances = ((x[:, None].astype(np.float64) - centroids) ** 2).sum(2)
    assert manifest["objective"] == pytest.approx(distances.min(1).sum(), rel=1e-6)
    assert manifest["sizes"] == np.bincount(distances.argmin(1), minlength=10).tolist()
    assert manifest["points"] == 900
    assert (manifest["k"], manifest["dims"], manifest["empty"]) == (10, 12, 0)
    assert manifest["iterations"] == len(curve)
    assert manifest["stopped"] == "no point moved"
    assert curve[-1]["objective"] == pytest.approx(manifest["objective"], rel=1e-5)
    assert manifest["centroids"] == file_digest(output.parent / "centroids.npy")
    assert manifest["curve"] == file_digest(output.parent / "curve.jsonl")
    assert manifest["inputs"] == {"features": [file_digest(features)]}
    made_of = json.loads(features.read_text())
    assert all(manifest[key] == made_of[key] for key in ("index", "model", "layer", "layer_shape"))
    assert manifest["pool"] == {"max": 2}
    assert not list(output.parent.rglob("checkpoint.pt"))
    refit = KMeans(10, init=centroids.astype(np.float64), n_init=1, tol=0).fit(x.astype(np.float64))
    assert refit.inertia_ == pytest.approx(manifest["objective"], rel=1e-6)  # a fixed point of Lloyd's


def test_cluster_writes_levels(make_features, tmp_path):
    features, _ = make_features(blobs())
    for name, options in (("levels", {"levels": (8, 3)}), ("plain", {})):
        output = tmp_path / name / "manifest.json"
        cluster.run(spec(k=30, spherical=True, **options), features=features, output=output, threads=1)
    plain, found = (read_manifest(tmp_path / name / "manifest.json", ClusterManifest) for name in ("plain", "levels"))
    assert found.centroids == plain.centroids and found.sizes == plain.sizes
    assert "levels" not in json.loads(plain.path.read_text()) and plain.parents == []
    centroids = np.load(tmp_path / "levels" / "centroids.npy")
    for number, (k, parents) in enumerate(zip((8, 3), found.parents, strict=True), 2):
        file = tmp_path / "levels" / f"level{number}.npy"
        assert file_digest(file) == found.levels[number - 2]["centroids"]
        above = kmeans(ArraySource(centroids), k, spherical=True, init="pca")
        np.testing.assert_array_equal(np.load(file), above.centroids)
        np.testing.assert_array_equal(parents, above.labels)
        centroids = above.centroids
    assert not list(tmp_path.rglob("checkpoint*.pt"))


@pytest.mark.parametrize(
    ("levels", "said"), [((10,), "10 clusters of 10 centroids"), ((5, 8), "8 clusters of 5 centroids")]
)
def test_cluster_levels_must_get_fewer(levels, said):
    with pytest.raises(ValueError, match=said):
        spec(levels=levels)


def test_cluster_writes_rows_as_they_come(make_features, tmp_path, monkeypatch):
    """The curve is in the work directory when the second iteration has been computed."""
    real, seen = lloyd._why_stop, []

    def why_stop(curve, *arguments):
        files = list((tmp_path / "work").rglob("curve.jsonl"))
        seen.append(files[0].read_text().count("\n") if files else 0)
        return real(curve, *arguments)

    monkeypatch.setattr(lloyd, "_why_stop", why_stop)
    features, _ = make_features(blobs())
    options = spec(init="random", max_iter=3, tolerance=0)
    cluster.run(options, features=features, output=tmp_path / "manifest.json", threads=1)
    assert seen == [0, 1, 2]
    assert (tmp_path / "curve.jsonl").read_text().count("\n") == 3
    assert not list((tmp_path / "work").rglob("curve.jsonl"))


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_cluster_is_deterministic_per_seed(make_features, tmp_path, backend):
    features, _ = make_features(blobs())
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = spec(backend=backend, seed=seed)
        cluster.run(options, features=features, output=tmp_path / name / "manifest.json", threads=1)
    for file in ("manifest.json", "centroids.npy", "curve.jsonl"):
        a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert a == b
        assert a != c


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        (blobs(8), {}, "cannot form 10 clusters from 8 points"),
        (np.ones((90, 3), np.float16), {}, "of 90 points all are equal"),
        (np.repeat(blobs(4), 20, axis=0), {}, "of 80 points only 4 differ"),
        (np.where(np.arange(900)[:, None] == 77, np.inf, blobs()).astype(np.float16), {}, "sample 77 has a feature"),
        (blobs(), {"backend": "faiss", "empty_cluster": "keep"}, "faiss cannot keep"),
    ],
)
def test_cluster_refuses_invalid_features(make_features, tmp_path, values, options, said):
    features, _ = make_features(values)
    output = tmp_path / "cluster" / "manifest.json"
    with pytest.raises(ArtifactError, match=said) as refusal:
        cluster.run(spec(**options), features=features, output=output, threads=1)
    assert str(features) in str(refusal.value) or options
    assert [path.name for path in output.parent.iterdir()] == ["work"]


def test_cluster_refuses_missing_store(tmp_path):
    with pytest.raises(ArtifactError, match="missing; run the stage that writes it"):
        cluster.run(spec(), features=tmp_path / "none.json", output=tmp_path / "manifest.json")


def test_cluster_faiss_refuses_too_many_points(make_features, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLTRANSFER_MEMORY_MB", "160")
    features, _ = make_features(np.zeros((45_000, 1000), np.float16))
    with pytest.raises(ArtifactError, match=r"needs all points in memory as float32, 171 MB, but the budget is 160"):
        cluster.run(
            spec(backend="faiss", init="random"), features=features, output=tmp_path / "manifest.json", threads=1
        )


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (np.float16, {}),
        (np.float32, {}),
        (np.float16, {"init": "random"}),
        (np.float16, {"init": "k-means++"}),
        (np.float16, {"l2_normalize": True}),
        (np.float16, {"backend": "faiss"}),
    ],
)
def test_cluster_runs_on_a_gpu(dtype, options, make_features, tmp_path, monkeypatch):
    features, _ = make_features(blobs().astype(dtype))
    monkeypatch.setattr(cluster, "plan_devices", lambda threads: Devices(CUDA, 0))
    output = tmp_path / "cluster" / "c" / "manifest.json"
    with on_gpu() as cuda:
        cluster.run(spec(**options), features=features, output=output, threads=1)
    assert not cuda.faults
    assert json.loads(output.read_text())["empty"] == 0
