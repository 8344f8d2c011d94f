"""k-means of a store of trained conv4 features, against faiss and scikit-learn: from the same start, from scratch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._testing import ignore_warnings

from benchmarks.harness.measure import OURS, Comparison, Setting, interleave
from benchmarks.harness.upper_bounds import product
from ssltransfer.artifacts.features import FeatureStore
from ssltransfer.artifacts.index import read_index
from ssltransfer.config.entities import Student
from ssltransfer.config.formats import ImageFolder, Synthetic
from ssltransfer.data.loader import load_batches
from ssltransfer.data.transforms import RandomResizedCrop
from ssltransfer.kmeans import kmeans
from ssltransfer.kmeans.lloyd import Init
from ssltransfer.models.weights import read_model
from ssltransfer.stages import index, student

DEVICES = ("cpu", "cuda")
FAISS, SKLEARN, PRODUCT = "faiss.Kmeans", "scikit-learn KMeans", "bare products"
SIDE = 131  # pixels: the least whose conv4 is no smaller than the 5x5 that it is pooled to
SAME = 10  # iterations from the same start
SEEDS = 5
DEFAULT = 25  # faiss's own number of iterations
RANDOM = "ours, init: random"


def run(setting: Setting) -> Iterator[Comparison]:
    """All begin with a float16 store in the page cache, which the baselines want as one float32 array.

    Each round from scratch has another seed, and ours ends no higher in the mean of all.
    """
    k, n = setting.size(300, 20), setting.size(20_480, 600)
    wide, what = features(setting, n)
    for x in (wide, reduced(wide, setting.size(512, 64))):
        store = FeatureStore.create(setting.folder / f"{x.shape[1]}.zarr", *x.shape, "float16")
        for chunk in range(store.chunks):
            store.write(chunk, x[store.span(chunk)].astype(np.float16))
        case = f"{len(x)} x {x.shape[1]} {what}, k = {k}, {setting.threads} threads"
        yield from _same_start(setting, store, k, case)
        yield from _from_nothing(setting, store, k, case)
        yield from _starts(setting, store, k, case)


def _loaded(store: FeatureStore) -> np.ndarray:
    return store.read(slice(0, store.shape[0])).astype(np.float32)


def _same_start(setting: Setting, store: FeatureStore, k: int, case: str) -> Iterator[Comparison]:
    start = _loaded(store)[np.random.default_rng(0).permutation(store.shape[0])[:k]]
    device = torch.device(setting.device)

    def ours() -> float:
        return kmeans(store, k, init=start, max_iter=SAME, tolerance=0, device=device).objective

    def by_faiss() -> float:
        x = _loaded(store)
        return objective(x, _faiss(setting, x, k, SAME, 0, start))

    @ignore_warnings(category=ConvergenceWarning)
    def by_sklearn() -> float:
        return float(KMeans(k, init=start, n_init=1, max_iter=SAME, tol=0).fit(_loaded(store)).inertia_)

    found = [ours(), by_faiss(), by_sklearn()]
    if max(found) > 1.001 * min(found):
        raise RuntimeError(f"kmeans: objectives from the same start differ: {found}.")
    bare = product(*store.shape, k, setting.device)

    def products() -> None:
        for _ in range(SAME + 1):  # the last pass gives the labels
            bare()

    # in a list: a bare number would be taken for seconds
    contenders = {OURS: lambda: [ours()], FAISS: lambda: [by_faiss()], SKLEARN: lambda: [by_sklearn()]}
    samples = interleave({**contenders, PRODUCT: products}, setting.rounds)
    goals = {FAISS: 1.0, SKLEARN: None}
    case = f"{SAME} iterations from the same start, and labels; {case}"
    paces = {"products": (PRODUCT, 2.0 * (SAME + 1) * store.shape[0] * store.shape[1] * k)}
    yield Comparison(case, 1, "", samples, goals, (PRODUCT,), paces)


def _from_nothing(setting: Setting, store: FeatureStore, k: int, case: str) -> Iterator[Comparison]:
    device = torch.device(setting.device)
    seeds = range(setting.size(max(setting.rounds, SEEDS - 1), setting.rounds) + 1)  # the first is not timed
    reached: dict[str, list[float]] = {OURS: [], FAISS: []}

    def ours(seed: int, iterations: int) -> float:
        return kmeans(store, k, init="pca", max_iter=iterations, tolerance=0, seed=seed, device=device).objective

    def theirs(seed: int) -> float:
        x = _loaded(store)
        return objective(x, _faiss(setting, x, k, DEFAULT, seed))

    best = theirs(seeds[0])
    iterations = next(count for count in range(1, DEFAULT + 1) if ours(seeds[0], count) <= best or count == DEFAULT)
    turns = {name: iter(seeds) for name in reached}
    contenders = {
        OURS: lambda: reached[OURS].append(ours(next(turns[OURS]), iterations)),
        FAISS: lambda: reached[FAISS].append(theirs(next(turns[FAISS]))),
    }
    samples = interleave(contenders, len(seeds) - 1)
    share = np.array(reached[OURS]) / reached[FAISS]
    about = (
        f"from scratch, init: pca and {iterations} iterations against {DEFAULT}, to {share.mean():.4f} of faiss's "
        f"objective ({share.min():.4f}-{share.max():.4f}, {len(share)} seeds)"
    )
    yield Comparison(f"{about}; {case}", 1, "", samples, {FAISS: 3.0 if share.mean() <= 1 else None})


def _starts(setting: Setting, store: FeatureStore, k: int, case: str) -> Iterator[Comparison]:
    """Both starts of ours until the stage itself would stop."""
    found: dict[str, list[float]] = {OURS: [], RANDOM: []}
    seeds = range(setting.size(max(setting.rounds, SEEDS - 1), setting.rounds) + 1)
    turns = {name: iter(seeds) for name in found}
    device = torch.device(setting.device)

    def one(name: str, init: Init) -> None:
        found[name].append(kmeans(store, k, init=init, seed=next(turns[name]), device=device).objective)

    contenders = {OURS: lambda: one(OURS, "pca"), RANDOM: lambda: one(RANDOM, "random")}
    samples = interleave(contenders, len(seeds) - 1)
    share = np.array(found[OURS]) / found[RANDOM]
    about = (
        f"to the end, init: pca against init: random, {share.mean():.4f} of its objective "
        f"({share.min():.4f}-{share.max():.4f}, {len(share)} seeds)"
    )
    yield Comparison(f"{about}; {case}", 1, "", samples, {RANDOM: None})


def _faiss(
    setting: Setting, x: np.ndarray, k: int, iterations: int, seed: int, start: np.ndarray | None = None
) -> np.ndarray:
    faiss.omp_set_num_threads(setting.threads)
    engine: Any = faiss.Kmeans(
        x.shape[1],
        k,
        niter=iterations,
        seed=seed + 1,
        gpu=setting.device == "cuda",
        max_points_per_centroid=len(x),
        min_points_per_centroid=1,
    )
    engine.train(x, init_centroids=start)
    centroids: np.ndarray = engine.centroids
    return centroids


def objective(x: np.ndarray, centroids: np.ndarray) -> float:
    """Sum of squared distances to the nearest centroid, which faiss finds."""
    nearest = faiss.IndexFlatL2(x.shape[1])
    nearest.add(centroids)
    return float(nearest.search(x, 1)[0].sum(dtype=np.float64))


def features(setting: Setting, n: int) -> tuple[np.ndarray, str]:
    """conv4 of a CaffeNet that learned the classes of the images, max-pooled to 5x5, of random crops.

    Returns:
        float32 (n, 9600), and what they are features of.
    """
    folder = setting.folder
    given = os.environ.get("SSLTRANSFER_REAL_DATA")
    if given:
        what, root = "features of photographs", Path(given) / "objects" / "tiny_imagenet"
        index.run(ImageFolder(root=str(root), split="train"), output=folder / "index.parquet", threads=setting.threads)
    else:
        what = "features of drawn objects"
        drawn = Synthetic(
            root=str(folder / "world"), subset="objects", split="train", num_images=setting.size(2400, 96)
        )
        index.run(drawn, output=folder / "index.parquet", threads=setting.threads)
    images = read_index(folder / "index.parquet")
    spec = Student.model_validate(
        {
            "method": "supervised",
            "data": "images",
            "backbone": {
                "name": "caffenet",
                "img_size": SIDE,
                "bn": True,
                **({"width_mult": 0.125} if setting.small else {}),
            },
            "schedule": {"steps": setting.size(200, 3), "batch_size": 32, "lr": 0.02, "lr_schedule": "cosine"},
        }
    )
    student.run(spec, data=folder / "index.parquet", output=folder / "model/manifest.json", threads=setting.threads)
    model = read_model(folder / "model/manifest.json", torch.device(setting.device))
    places = [(number % len(images), number // len(images)) for number in range(n)]
    keys = iter([places[first : first + 64] for first in range(0, n, 64)])
    found = []
    with torch.inference_mode():
        for batch in load_batches(images, RandomResizedCrop(SIDE), keys, seed=0):
            layer = model.layers_of(batch.to(torch.device(setting.device)).images, ["conv4"])["conv4"]
            found.append(F.adaptive_max_pool2d(layer.float(), 5).flatten(1).cpu().numpy())
    return np.concatenate(found), what


def reduced(x: np.ndarray, dims: int) -> np.ndarray:
    """The leading principal components, float32 (n, dims)."""
    centered = torch.from_numpy(x - x.mean(0))
    torch.manual_seed(0)
    _, _, directions = torch.svd_lowrank(centered[: 4 * dims], q=dims, niter=1)
    return (centered @ directions).numpy()
