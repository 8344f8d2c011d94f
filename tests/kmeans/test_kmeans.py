"""k-means against scikit-learn, faiss and the laws that it must obey."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.kmeans import ArraySource, PointLoader, SubsetSource, kmeans
from ssltransfer.kmeans import points as points_module
from ssltransfer.kmeans.assignment import NearestCentroid
from ssltransfer.kmeans.init import first_centroids
from ssltransfer.kmeans.update import ClusterSums, TorchStep
from tests.helpers.pretended_cuda import CUDA, PretendCuda, on_gpu

CPU = torch.device("cpu")


def blobs(n=2000, dims=24, centers=40, seed=0, spread=2.0):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(centers, dims)) * spread + 3
    return (means[rng.integers(centers, size=n)] + rng.normal(size=(n, dims))).astype(np.float32)


def nearest(centroids, x):
    return NearestCentroid(centroids, len(x))(x, (x * x).sum(1))


def points_of(x, k=2, **options):
    defaults: dict[str, Any] = {"normalize": False, "device": CPU, "budget": 1 << 30, "where": "x"}
    return PointLoader(ArraySource(x), k, **(defaults | options))


class Chunks(ArraySource):
    """An array in chunks of some rows, which counts how often it is read."""

    def __init__(self, values, rows):
        super().__init__(values)
        self.rows, self.reads = rows, 0

    def read(self, span):
        self.reads += 1
        return super().read(span).copy()


def test_kmeans_by_hand():
    """0, 2, 10 and 14 with centroids 0 and 10: objective 0 + 4 + 0 + 16, means 1 and 12; then 1 + 1 + 4 + 4."""
    x = np.array([[0.0], [2], [10], [14]], np.float32)
    found = kmeans(ArraySource(x), 2, init=np.array([[0.0], [10]], np.float32), tolerance=0)
    assert found.centroids.tolist() == [[1.0], [12.0]] and found.labels.tolist() == [0, 0, 1, 1]
    assert [row["objective"] for row in found.curve] == [20.0, 10.0] and found.objective == 10.0
    assert found.distances.tolist() == [1.0, 1.0, 4.0, 4.0] and found.sizes.tolist() == [2, 2]


def test_point_loader_normalizes_rows_by_hand():
    rows = points_of(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32), 1, normalize=True).take(np.array([0, 1]))
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


@pytest.mark.parametrize(("dims", "k", "seed"), [(24, 30, 0), (3, 50, 1), (600, 20, 2)])
def test_kmeans_matches_scikit_learn_from_the_same_centroids(dims, k, seed):
    x = blobs(dims=dims, seed=seed)
    init = x[:k]
    ours = kmeans(ArraySource(x), k, init=init, max_iter=300, tolerance=0)
    theirs = KMeans(k, init=init.astype(np.float64), n_init=1, max_iter=300, tol=0).fit(x.astype(np.float64))
    assert ours.stopped == "no point moved"
    assert ours.objective == pytest.approx(theirs.inertia_, rel=1e-6)
    assert (ours.labels == theirs.labels_).mean() > 0.999
    assert ours.sizes.tolist() == np.bincount(ours.labels, minlength=k).tolist()


def test_point_loader_reads_kept_points_once():
    few, many = (Chunks(blobs(1000), 100) for _ in range(2))
    kmeans(few, 30, max_iter=1, tolerance=0)
    kmeans(many, 30, max_iter=9, tolerance=0)
    assert few.reads == many.reads


def test_center_discards_converted_points():
    x = blobs(1000)
    source = Chunks(x, 100)
    points = PointLoader(source, 2, normalize=False, device=CPU, budget=1 << 30, where="x")
    seen = [block.clone() for _ in range(2) for _, block in points]
    points.center(torch.ones(x.shape[1]))
    seen += [block + 1 for _, block in points]
    assert source.reads == 2 * 10
    assert torch.equal(torch.cat(seen[:10]), torch.from_numpy(x)) and len(seen) == 30
    assert torch.allclose(torch.cat(seen[20:]), torch.from_numpy(x), atol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_subset_source_reads_its_rows(rows):
    x = blobs(100)
    ids = np.flatnonzero(np.random.default_rng(0).random(100) < 0.3)
    some = SubsetSource(Chunks(x, rows), ids)
    assert some.shape == (len(ids), 24)
    for start in range(0, len(ids), some.rows):
        assert (some.read(slice(start, start + some.rows)) == x[ids[start : start + some.rows]]).all()


def test_kmeans_every_iteration_matches_lloyd():
    """Ten lines of float64 as the reference, for the curve and the centroids."""
    x = blobs(500, 8)
    centroids = x[:12].astype(np.float64)
    ours = kmeans(ArraySource(x), 12, init=x[:12], max_iter=6, tolerance=0)
    before = np.full(500, -1)
    for row in ours.curve:
        distances = ((x[:, None].astype(np.float64) - centroids) ** 2).sum(2)
        labels = distances.argmin(1)
        assert row["objective"] == pytest.approx(distances.min(1).sum(), rel=1e-6)
        assert row["mean"] == pytest.approx(row["objective"] / 500)
        assert row["moved"] == (labels != before).sum()
        centroids = np.stack([x[labels == j].mean(0, dtype=np.float64) for j in range(12)])
        before = labels
    np.testing.assert_allclose(ours.centroids, centroids, atol=1e-5)


def test_faiss_matches_torch():
    x = blobs()
    ours = kmeans(ArraySource(x), 30, init=x[:30], max_iter=20, tolerance=0)
    theirs = kmeans(ArraySource(x), 30, init=x[:30], max_iter=20, tolerance=0, backend="faiss")
    assert theirs.objective == pytest.approx(ours.objective, rel=1e-4)
    shared = min(len(ours.curve), len(theirs.curve))
    for mine, its in zip(ours.curve[:shared], theirs.curve[:shared], strict=True):
        assert its["objective"] == pytest.approx(mine["objective"], rel=1e-4)
    assert theirs.curve[0]["moved"] is None


def test_faiss_uses_all_points():
    """By default faiss trains on 256 points per cluster."""
    x = blobs(2000, 4)
    ours = kmeans(ArraySource(x), 2, init=x[:2], max_iter=3, tolerance=0, backend="faiss")
    reference = KMeans(2, init=x[:2], n_init=1, max_iter=3, tol=0).fit(x)
    assert ours.objective == pytest.approx(reference.inertia_, rel=1e-4)


def test_kmeans_objective_never_rises_for_any_number_of_threads():
    x = blobs(3000, 200)
    runs = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            runs.append(kmeans(ArraySource(x), 40, max_iter=15, tolerance=0, seed=3))
    finally:
        torch.set_num_threads(threads)
    curve = [row["objective"] for row in runs[0].curve]
    assert all(after < before for before, after in pairwise(curve))
    for other in runs[1:]:
        assert other.objective == pytest.approx(runs[0].objective, rel=1e-6)
        assert (other.labels == runs[0].labels).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("normalize", [False, True])
def test_kmeans_gives_equal_bits_for_any_memory_budget(dtype, normalize, monkeypatch):
    monkeypatch.setitem(points_module.BLOCK_FLOATS, "cpu", 1 << 13)
    x = blobs(4000, 32).astype(dtype)
    results, reads = [], []
    for budget in (400_000, 700_000, 1 << 30):  # on the disk; kept in 16 bits if it has 16; kept in 32
        source = Chunks(x, 200)
        found = kmeans(source, 20, max_iter=4, tolerance=0, seed=1, l2_normalize=normalize, budget=budget)
        results.append(found)
        reads.append(source.reads)
    kept = results[-1]
    assert [found.residency for found in results] == ["disk", "cpu" if dtype == np.float16 else "disk", "cpu"]
    assert reads[-1] <= 4 * 20 < reads[0]  # kept: for offset, start, iterations and the last pass
    assert len(kept.curve) > 2
    for other in results[:-1]:
        assert other.centroids.tobytes() == kept.centroids.tobytes()
        assert other.labels.tobytes() == kept.labels.tobytes()
        assert other.distances.tobytes() == kept.distances.tobytes()
        assert other.curve == kept.curve


def test_kmeans_with_normalize_clusters_unit_rows():
    x = blobs()
    x[7] = 0
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    unit = np.divide(x, lengths, where=lengths > 0, out=np.zeros_like(x))
    ours = kmeans(ArraySource(x), 15, init=unit[:15], l2_normalize=True, tolerance=0, max_iter=300)
    theirs = KMeans(15, init=unit[:15].astype(np.float64), n_init=1, max_iter=300, tol=0).fit(unit.astype(np.float64))
    assert ours.objective == pytest.approx(theirs.inertia_, rel=1e-6)


@pytest.mark.parametrize("how", ["random", "k-means++"])
def test_first_centroids_are_distinct_and_a_function_of_the_seed(how):
    x = np.repeat(blobs(60, 5), 20, axis=0)
    points = points_of(x, 60)
    first = first_centroids(points, 60, how, seed=4)
    assert len(np.unique(first.numpy(), axis=0)) == 60
    assert all((x == row).all(1).any() for row in first.numpy())
    assert torch.equal(first, first_centroids(points, 60, how, seed=4))
    few = first_centroids(points, 5, how, seed=4)
    assert not torch.equal(few, first_centroids(points, 5, how, seed=5))


def test_random_init_is_uniform():
    x = np.arange(50, dtype=np.float32)[:, None]
    points = points_of(x, 10)
    counts = np.zeros(50)
    for seed in range(300):
        counts[first_centroids(points, 10, "random", seed).numpy().astype(int)[:, 0]] += 1
    assert counts.sum() == 3000
    # chi^2 of 49 degrees of freedom (draws without repetition spread less): 99.9% are less than 85
    assert ((counts - 60) ** 2 / 60).sum() < 85


def test_plus_plus_draws_by_squared_distance():
    """Three places: after the first point, the second is the far place with probability d^2 over the sum."""
    x = np.array([[0.0], [1.0], [3.0]], np.float32)
    points = points_of(x)
    seconds: dict[int, list[int]] = {0: [], 1: [], 3: []}
    for seed in range(1500):
        first, second = first_centroids(points, 2, "k-means++", seed).numpy()[:, 0].astype(int)
        seconds[first].append(second)
    for first, far, share in ((0, 3, 0.9), (1, 3, 0.8), (3, 0, 9 / 13)):
        drawn = np.array(seconds[first])
        assert 400 < len(drawn) < 600
        assert (drawn == far).mean() == pytest.approx(share, abs=4 * (share * (1 - share) / len(drawn)) ** 0.5)


def test_plus_plus_starts_with_a_lower_objective():
    x = blobs(3000, 10, centers=30, spread=20)
    means = {
        how: np.mean(
            [kmeans(ArraySource(x), 30, init=how, max_iter=1, seed=seed).curve[0]["mean"] for seed in range(5)]
        )
        for how in ("random", "k-means++")
    }
    assert means["k-means++"] < 0.9 * means["random"]


def test_pca_init_ends_with_no_higher_objective():
    """And sooner: few iterations in all dimensions are left."""
    x = blobs(4000, 200, centers=60, spread=0.5)
    found = {
        how: [kmeans(ArraySource(x), 50, init=how, max_iter=30, seed=seed) for seed in range(3)]
        for how in ("random", "pca")
    }
    objective = {how: np.mean([one.objective for one in runs]) for how, runs in found.items()}
    length = {how: np.mean([len(one.curve) for one in runs]) for how, runs in found.items()}
    assert objective["pca"] <= objective["random"]
    assert length["pca"] < length["random"]
    again = kmeans(ArraySource(x), 50, init="pca", max_iter=30, seed=2)
    assert again.centroids.tobytes() == found["pca"][2].centroids.tobytes()


def test_half_precision_points_get_the_same_sums():
    """What CUDA does with float16 features, on a CPU: products of halves, everything else in float32 and above."""
    x = (blobs(3000, 64, spread=1) * 100).astype(np.float16)
    points, offset = points_of(x, 30), torch.from_numpy(x[:100].astype(np.float32)).mean(0)
    points.center(offset, torch.float16, 0.5)
    centroids = torch.from_numpy(x[:30].astype(np.float32))
    half = NearestCentroid((centroids - offset) * 0.5, points.step, torch.float16)
    sums = ClusterSums(30, 64, CPU)
    labels, distances = torch.empty(3000, dtype=torch.int64), torch.empty(3000)
    for span, rows in points:
        assert rows.dtype == torch.float16
        labels[span], distances[span] = half(rows, torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32) ** 2)
        sums.add(labels[span], rows)
    sums.flush()
    exact = ((x[:, None].astype(np.float64) - x[None, :30].astype(np.float64)) ** 2).sum(2)
    assert (exact.argmin(1) == labels.numpy()).mean() > 0.998
    np.testing.assert_allclose(distances.numpy() * 4, exact.min(1), rtol=2e-2, atol=exact.mean() * 1e-3)
    means = sums.rows / sums.counts[:, None] * 2 + offset
    expected = np.stack([x[labels.numpy() == j].mean(0, dtype=np.float64) for j in range(30)])
    np.testing.assert_allclose(means.numpy(), expected, atol=0.3)


@pytest.mark.gpu
@pytest.mark.parametrize("normalize", [False, True])
def test_kmeans_of_halves_on_a_gpu_agrees_with_the_cpu(normalize):
    """Products of halves decide near-ties otherwise: some labels of points between two clusters differ."""
    x = (blobs(3000, 64, spread=1) * 100).astype(np.float16)
    found = []
    for device in (CPU, CUDA):
        with on_gpu() as cuda:
            options = {"init": x[:30].astype(np.float32), "max_iter": 10, "tolerance": 0, "l2_normalize": normalize}
            result = kmeans(ArraySource(x), 30, device=device, **options)
        assert not cuda.faults
        found.append(result)
    assert found[1].objective == pytest.approx(found[0].objective, rel=2e-3)
    assert (found[1].labels == found[0].labels).mean() > 0.98


def test_farthest_matches_scikit_learn():
    x = blobs(800, 6, centers=10)
    init = np.concatenate([x[:6], np.full((3, 6), 1e3, np.float32)])  # three centroids that no point is near
    ours = kmeans(ArraySource(x), 9, init=init, max_iter=300, tolerance=0)
    theirs = KMeans(9, init=init.astype(np.float64), n_init=1, max_iter=300, tol=0).fit(x.astype(np.float64))
    assert ours.curve[0]["empty"] == 3
    assert ours.curve[1]["empty"] == 0
    assert ours.sizes.min() > 0
    assert ours.objective == pytest.approx(theirs.inertia_, rel=1e-6)


def test_farthest_breaks_ties_by_the_lowest_sample():
    x = np.array([[0.0], [0.0], [5.0], [-5.0], [-5.0], [5.0]], np.float32)
    found = kmeans(ArraySource(x), 2, init=np.array([[0.0], [100.0]], np.float32), max_iter=1)
    # Sample 2 (at 5) leaves; the other five have mean -1.
    assert found.centroids[:, 0].tolist() == [-1.0, 5.0]


def test_farthest_skips_equal_points():
    x = np.array([[0.0], [0.2], [9.0], [9.0], [9.0], [-7.0], [-7.0]], np.float32)
    found = kmeans(ArraySource(x), 3, init=np.array([[0.0], [100.0], [200.0]], np.float32), max_iter=20)
    assert sorted(found.centroids[:, 0].tolist()) == pytest.approx([-7.0, 0.1, 9.0], abs=1e-5)


def test_empty_clusters_keep_and_error():
    x = blobs(300, 4)
    init = np.concatenate([x[:4], np.full((1, 4), 1e3, np.float32)])
    kept = kmeans(ArraySource(x), 5, init=init, empty_cluster="keep")
    assert kept.sizes[4] == 0
    assert (kept.centroids[4] == 1e3).all()
    with pytest.raises(ArtifactError, match=r"the images: 1 of 5 clusters have no points .* is 4"):
        kmeans(ArraySource(x), 5, init=init, empty_cluster="error", where="the images")
    with pytest.raises(ArtifactError, match="1 of 5 clusters have no points"):
        kmeans(ArraySource(x), 5, init=init, empty_cluster="error", backend="faiss")
    with pytest.raises(ArtifactError, match="cannot keep"):
        kmeans(ArraySource(x), 5, init=init, empty_cluster="keep", backend="faiss")


def test_kmeans_reports_why_it_stopped():
    x = blobs()
    assert kmeans(ArraySource(x), 30, max_iter=2, tolerance=0).stopped == "maximum number of iterations"
    few = kmeans(ArraySource(blobs(spread=20)), 40, init=blobs(spread=20)[:40], max_iter=99, tolerance=0.01)
    assert few.stopped == "less than 0.01 of the points moved"
    assert [row["moved"] < 0.01 * 2000 for row in few.curve] == [False] * (len(few.curve) - 1) + [True]
    shapeless = np.random.default_rng(0).normal(size=(2000, 24)).astype(np.float32)
    loose = kmeans(ArraySource(shapeless), 30, max_iter=99, tolerance=0.01)
    assert loose.stopped == "the objective decreased by less than 0.01 of its value"
    falls = [1 - after["objective"] / before["objective"] for before, after in pairwise(loose.curve)]
    assert [fall < 0.01 for fall in falls] == [False] * (len(falls) - 1) + [True]
    assert "objective" in kmeans(ArraySource(x), 30, max_iter=99, tolerance=0, backend="faiss").stopped


@pytest.mark.parametrize("how", ["random", "k-means++", "pca"])
@pytest.mark.parametrize(
    ("x", "k", "said"),
    [
        (blobs(5, 3), 6, "the images: cannot form 6 clusters from 5 points"),
        (np.ones((50, 3), np.float32), 2, "the images: of 50 points all are equal"),
        (np.repeat(blobs(4, 3), 30, axis=0), 6, "the images: of 120 points only 4 differ"),
    ],
)
def test_kmeans_refuses_degenerate_points(how, x, k, said):
    with pytest.raises(ArtifactError, match=said):
        kmeans(ArraySource(x), k, init=how, where="the images")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_kmeans_refuses_values_that_are_not_finite(value, backend):
    x = blobs(3000, 8)
    x[2345, 3] = value
    with pytest.raises(ArtifactError, match="the images: sample 2345 "):
        kmeans(Chunks(x, 700), 4, backend=backend, where="the images")


def test_kmeans_with_k_equal_to_n():
    x = blobs(40, 3)
    found = kmeans(ArraySource(x), 40)
    assert sorted(found.labels.tolist()) == list(range(40))
    assert found.objective == pytest.approx(0, abs=1e-9)


def test_kmeans_refuses_too_little_memory(monkeypatch):
    with pytest.raises(ArtifactError, match=r"the images: 4 clusters in 8 dimensions need .* budget is 0 MB"):
        kmeans(ArraySource(blobs(100, 8)), 4, budget=1000, where="the images")
    monkeypatch.setitem(points_module.BLOCK_FLOATS, "cpu", 1 << 12)
    x = blobs(4000, 32)
    with pytest.raises(ArtifactError, match="faiss needs all points in memory"):
        kmeans(Chunks(x, 200), 2, budget=x.nbytes - 1, backend="faiss")


def test_nearest_centroid_decides_near_ties_exactly():
    """Pairs of centroids differ in their last digits; float64 tells which is nearer."""
    rng = np.random.default_rng(5)
    half = rng.normal(size=(30, 700))
    centroids = np.concatenate([half, half + rng.normal(size=half.shape) * 1e-6]).astype(np.float32)
    x = rng.normal(size=(300, 700)).astype(np.float32)
    truth = np.stack([((row - centroids.astype(np.float64)) ** 2).sum(1) for row in x]).argmin(1)
    found, _ = nearest(torch.from_numpy(centroids), torch.from_numpy(x))
    assert (found.numpy() == truth).all()
    plain = ((centroids**2).sum(1) - 2 * x @ centroids.T).argmin(1)
    assert (plain != truth).mean() > 0.05  # otherwise this would show nothing


def test_nearest_centroid_computes_a_large_block_in_parts(monkeypatch):
    """Blocks of a GPU have as many points as fit, whatever the number of clusters."""
    x = torch.from_numpy(blobs(500, 9)).float()
    whole = nearest(x[:40].clone(), x)
    monkeypatch.setitem(points_module.BLOCK_FLOATS, "cpu", 40 * 60)
    parts = nearest(x[:40].clone(), x)
    assert NearestCentroid(x[:40], 500)._scores.shape == (60, 40)
    assert torch.equal(whole[0], parts[0]) and torch.allclose(whole[1], parts[1], atol=1e-4)


def test_nearest_centroid_breaks_ties_by_the_lowest_cluster():
    rng = np.random.default_rng(6)
    centroids = rng.normal(size=(37, 65)).astype(np.float32)
    doubled = np.concatenate([centroids, centroids[::-1], centroids])
    x = torch.from_numpy(rng.normal(size=(500, 65)).astype(np.float32))
    found, _ = nearest(torch.from_numpy(doubled), x)
    assert found.max() < 37
    halves = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    label, distance = nearest(halves, torch.zeros(1, 2))
    assert label.tolist() == [0]
    assert distance.tolist() == [1.0]


@pytest.mark.parametrize("k", [3, 5000])
def test_cluster_sums_of_a_block(k):
    rng = np.random.default_rng(7)
    x, labels = rng.normal(size=(1000, 9)).astype(np.float32), rng.integers(k, size=1000)
    expected = np.zeros((k, 9))
    np.add.at(expected, labels, x.astype(np.float64))
    sums = ClusterSums(k, 9, CPU)
    for rows in np.array_split(np.arange(1000), 3):
        sums.add(torch.from_numpy(labels[rows]), torch.from_numpy(x[rows]))
    sums.flush()
    np.testing.assert_allclose(sums.rows.numpy(), expected, atol=1e-4)
    assert sums.counts.tolist() == np.bincount(labels, minlength=k).tolist()


def test_take_keeps_the_requested_order():
    x = blobs(1000, 4)
    points = PointLoader(Chunks(x, 128), 2, normalize=False, device=CPU, budget=1 << 30, where="x")
    ids = np.array([999, 3, 500, 3, 127, 128])
    np.testing.assert_array_equal(points.take(ids).numpy(), x[ids])


def test_points_on_a_gpu_are_in_blocks_of_several_chunks(monkeypatch):
    """A chunk of a store is too small for a matrix product that fills a GPU."""
    x = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float16)
    monkeypatch.setitem(points_module.BLOCK_ROWS, "cuda", 25)
    with PretendCuda():
        points = PointLoader(Chunks(x, 8), 2, normalize=False, device=CUDA, where="x", budget=1 << 30)
        blocks = [(span, rows.cpu().numpy()) for span, rows in points]
        some = points.take(np.array([99, 3, 24])).cpu().numpy()
    assert [span.stop for span, _ in blocks] == [24, 48, 72, 96, 100]
    assert all(np.array_equal(rows, x[span].astype(np.float32)) for span, rows in blocks)
    assert np.array_equal(some, x[[99, 3, 24]].astype(np.float32))


def test_points_kept_before_they_are_halves_are_converted_once():
    """As with init: pca on a GPU with room for halves only, which reads all points before the first iteration."""
    x = blobs(20000, 64).astype(np.float16)
    work = points_of(x).budget - points_of(x)._room
    points = points_of(x, budget=work + 3 * x.nbytes // 2)
    list(points)
    assert points.resident_on and not points._ready, "they do not fit as float32"
    points.center(torch.ones(64), torch.float16)
    blocks = torch.cat([rows for _, rows in points])
    assert torch.equal(blocks, (torch.from_numpy(x).float() - 1).half())
    assert points._ready == {0}


def test_points_kept_on_a_gpu_are_read_once(monkeypatch):
    """Also for the last pass, which needs them as they are stored."""
    x = blobs(200, 8).astype(np.float16)
    source = Chunks(x, 16)
    monkeypatch.setitem(points_module.BLOCK_ROWS, "cuda", 40)
    with PretendCuda() as cuda:
        found = kmeans(source, 5, device=CUDA, max_iter=5, budget=1 << 30)
    assert not cuda.faults
    assert found.residency == "cuda:0" and source.reads == 7, "200 points in reads of two chunks"
    assert (found.labels == kmeans(ArraySource(x), 5, max_iter=5).labels).mean() > 0.95


@pytest.mark.parametrize("budget", [1 << 30, 400_000])
def test_points_beyond_the_memory_of_a_gpu_are_copied_ahead(budget, monkeypatch):
    """From page-locked memory without a wait, or from the disk."""
    x = blobs(20_000, 16).astype(np.float16)
    monkeypatch.setitem(points_module.BLOCK_ROWS, "cuda", 2000)
    with PretendCuda() as cuda:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (1000, 80 << 30))
        points = PointLoader(Chunks(x, 2000), 2, normalize=False, device=CUDA, where="x", budget=budget + 24 * len(x))
        list(points)
        cuda.reset()
        for span, rows in points:
            assert np.array_equal(rows.detach().clone().cpu().numpy(), x[span].astype(np.float32))
    assert str(points.resident_on) == ("cpu" if budget == 1 << 30 else "None")
    pageable = [place for place in cuda.waits if "pageable" in place]
    assert bool(pageable) == (budget < 1 << 30) and len(cuda.copied) == 10


def test_points_for_a_gpu_fit_in_host_memory_with_what_page_locking_wastes(monkeypatch):
    """torch allocates page-locked memory in powers of two: 10 chunks of 64,000 bytes take 65,536 bytes each."""
    x = blobs(20_000, 16).astype(np.float16)
    monkeypatch.setitem(points_module.BLOCK_ROWS, "cuda", 2000)
    with PretendCuda():
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (1000, 80 << 30))

        def loader(budget: int) -> PointLoader:
            return PointLoader(Chunks(x, 2000), 2, normalize=False, device=CUDA, where="x", budget=budget)

        work = (1 << 30) - loader(1 << 30)._room
        assert loader(work + 10 * 65_536).resident_on == torch.device("cpu")
        assert loader(work + 10 * 65_536 - 1).resident_on is None


@pytest.mark.parametrize("blocks", [2, 8])
def test_lloyd_iteration_waits_for_a_gpu_a_few_times_whatever_the_number_of_blocks(blocks, monkeypatch):
    x = np.random.default_rng(0).normal(size=(800, 12)).astype(np.float16)
    monkeypatch.setitem(points_module.BLOCK_ROWS, "cuda", len(x) // blocks)
    with PretendCuda() as cuda:
        loader = PointLoader(ArraySource(x), 5, normalize=False, device=CUDA, where="x", budget=1 << 30)
        step = TorchStep(loader, 5, "farthest")
        first = step(torch.from_numpy(x[:5].astype(np.float32)).to(CUDA))
        cuda.reset()
        second = step(first.centroids)
    assert not cuda.faults
    assert second.objective < first.objective
    assert sum(cuda.waits.values()) == 3, "empty clusters, the objective, and how many points moved"
    assert cuda.launches < 20 * blocks + 60
