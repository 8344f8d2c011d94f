"""Cluster quality without labels (protocols 4.6): how compact are k-means clusters, and do they come again?"""

from itertools import combinations
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score, silhouette_score

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.protocols import ClusterQuality
from ssltransfer.data.rng import seed_of
from ssltransfer.kmeans import Clustering, kmeans
from ssltransfer.kmeans.points import SubsetSource
from ssltransfer.protocols.base import PROTOCOLS, EvalContext, EvalResult, percent
from ssltransfer.protocols.harness import SeedResult, run_seeds
from ssltransfer.training.checkpoint import Checkpoint

IMAGES, IMAGES_PER_CLUSTER = 10_000, 5  # at least, of which the silhouette is computed, if there are as many


@PROTOCOLS.register(ClusterQuality)
def evaluate(context: EvalContext) -> EvalResult:
    """Silhouette and stability for each k and each seed, in percent; 0 is the level of clusters without structure.

    `silhouette` is the mean silhouette coefficient of the first run's clusters, over random images. `stability` is the
    mean adjusted Rand index of all pairs of runs, over all images.

    Raises:
        ArtifactError: as many clusters as images, or fewer different images than clusters.
    """
    options, store = context.options(ClusterQuality), context.features[1]
    n = len(context.test)
    ks = options.ks(n)
    if max(ks) >= n:
        raise ArtifactError(f"{context.spec.test}: {n} images cannot form {max(ks)} clusters; lower `k`.")

    def clustered(k: int, seed: int, folder: Path) -> Clustering:
        return kmeans(
            store,
            k,
            init=options.init,
            max_iter=options.max_iter,
            l2_normalize=options.l2_normalize,
            seed=seed,
            device=context.devices.device,
            checkpoint=Checkpoint(folder / f"k{k}-{seed}.pt"),
            where=context.spec.test,
        )

    def run(seed: int, folder: Path) -> SeedResult:
        values: dict[str, float] = {}
        table = []
        for k in ks:
            runs = [clustered(k, seed * options.starts + start, folder) for start in range(options.starts)]
            drawn = np.sort(np.random.default_rng(seed_of(seed, "silhouette", k)).permutation(n)[: sample_size(k)])
            rows = SubsetSource(store, drawn).read(slice(0, len(drawn)))
            found = {
                "silhouette": percent(silhouette(rows, runs[0].labels[drawn], normalize=options.l2_normalize) or 0.0),
                "stability": stability([one.labels for one in runs]),
            }
            values |= {f"k{k}-{name}": value for name, value in found.items()}
            table.append({"k": k, **found})
        first = {name: values[f"k{ks[0]}-{name}"] for name in ("silhouette", "stability")}
        return SeedResult(first | values, 0.0, {"lines": [figure(context, table)]})

    return run_seeds(context, run)


def sample_size(k: int) -> int:
    """Number of images for the silhouette of k clusters."""
    return max(IMAGES, IMAGES_PER_CLUSTER * k)


def silhouette(rows: np.ndarray, labels: np.ndarray, *, normalize: bool) -> float | None:
    """Mean silhouette coefficient, from -1 to 1, of rows (N, D) with cluster labels (N,), by Euclidean distance.

    None if all rows have the same label, or each a label of its own.
    """
    if not 1 < len(np.unique(labels)) < len(labels):
        return None
    rows = rows.astype(np.float32)
    if normalize:
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return float(silhouette_score(rows, labels))


def stability(runs: list[np.ndarray]) -> float:
    """Mean adjusted Rand index of all pairs of labelings (N,), in percent."""
    return percent(np.mean([adjusted_rand_score(a, b) for a, b in combinations(runs, 2)]))


def figure(context: EvalContext, table: list[dict[str, float]]) -> dict[str, object]:
    """Silhouette and stability over the number of clusters, as a figure of the report."""
    rows = sorted(table, key=lambda row: row["k"])
    series = {name: [[row["k"] for row in rows], [row[name] for row in rows]] for name in ("silhouette", "stability")}
    return {"title": f"Clusters of {context.spec.test}", "x": "number of clusters", "y": "%", "series": series}
