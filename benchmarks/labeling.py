"""The nearest centroid of many vectors, as the label stage finds it, against faiss's flat index of the centroids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import torch

from benchmarks.harness.measure import OURS, Comparison, Setting, interleave
from benchmarks.harness.upper_bounds import product
from ssltransfer.kmeans import ArraySource, PointLoader, assign, memory_budget

DEVICES = ("cpu", "cuda")
GOAL = 1.0
FAISS, PRODUCT = "faiss IndexFlatL2", "bare product"


def run(setting: Setting) -> Iterator[Comparison]:
    """Ours checks that all values are finite and decides near-ties in float64 besides."""
    n, dims, k = setting.size(1_000_000, 30_000), 512, 1000
    draw = np.random.default_rng(0)
    centroids = draw.standard_normal((k, dims), np.float32)
    vectors = draw.standard_normal((n, dims), np.float32)
    for start in range(0, n, 65536):
        part = vectors[start : start + 65536]
        part += centroids[draw.integers(0, k, len(part))]
    index: Any = faiss.IndexFlatL2(dims)
    if setting.device == "cuda":
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(centroids)

    def ours() -> np.ndarray:
        device = torch.device(setting.device)
        points = PointLoader(
            ArraySource(vectors), k, normalize=False, device=device, budget=memory_budget(), where="", keep=False
        )
        return assign(points, torch.from_numpy(centroids).to(device))[0].numpy()

    def theirs() -> np.ndarray:
        found: np.ndarray = index.search(vectors, 1)[1][:, 0]
        return found

    same = (ours() == theirs()).mean()
    if same < 0.999:
        raise RuntimeError(f"labeling: only {same:.1%} of the labels are faiss's.")
    bare = product(n, dims, k, setting.device)
    samples = interleave({OURS: ours, FAISS: theirs, PRODUCT: bare}, setting.rounds)
    case = f"{n} x {dims} float32 to {k} centroids, {setting.threads} threads"
    yield Comparison(case, n, "vectors", samples, {FAISS: GOAL}, (PRODUCT,))
