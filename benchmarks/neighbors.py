"""Nearest neighbors by cosine, from raw features to ids, against faiss's flat index."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import faiss
import numpy as np
import torch

from benchmarks.harness.measure import OURS, Comparison, Contender, Setting, interleave
from benchmarks.harness.upper_bounds import product
from ssltransfer.kmeans import ArraySource, PointLoader, memory_budget
from ssltransfer.protocols.knn_search import query_block, topk_products

DEVICES = ("cpu", "cuda")
GOAL = 1.0
FAISS, PRODUCT = "faiss IndexFlatIP", "bare product"


def run(setting: Setting) -> Iterator[Comparison]:
    """Both divide the vectors by their lengths on the clock, as both must."""
    n, queries, dims = setting.size(50_000, 8000), setting.size(5_000, 1000), setting.size(2048, 1024)
    gallery, asked = (
        np.random.default_rng(seed).random((rows, dims), np.float32) for seed, rows in enumerate((n, queries))
    )
    for k in (1, 20):
        contenders: dict[str, Contender] = {
            OURS: partial(_ours, gallery, asked, k, setting.device),
            FAISS: partial(_faiss, gallery, asked, k, setting.device),
            PRODUCT: product(queries, dims, n, setting.device, 1024),
        }
        _check(gallery, asked[:100], k, setting.device)
        samples = interleave(contenders, setting.rounds)
        case = f"k = {k}: {queries} of {n} x {dims}, {setting.threads} threads"
        yield Comparison(case, queries, "queries", samples, {FAISS: GOAL}, (PRODUCT,))


def _ours(gallery: np.ndarray, asked: np.ndarray, k: int, on: str) -> np.ndarray:
    device = torch.device(on)
    block = query_block(asked.shape, device)
    points, queries = (
        PointLoader(
            ArraySource(values), block, normalize=True, device=device, budget=memory_budget(), where="", keep=keep
        )
        for values, keep in ((gallery, True), (asked, False))
    )
    spans = [np.arange(start, min(start + block, len(asked))) for start in range(0, len(asked), block)]
    return np.concatenate([topk_products(points, queries.take(span), k)[1].cpu().numpy() for span in spans])


def _faiss(gallery: np.ndarray, asked: np.ndarray, k: int, device: str) -> np.ndarray:
    gallery, asked = gallery.copy(), asked.copy()
    faiss.normalize_L2(gallery)
    faiss.normalize_L2(asked)
    index: Any = faiss.IndexFlatIP(gallery.shape[1])
    if device == "cuda":
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(gallery)
    found: np.ndarray = index.search(asked, k)[1]
    return found


def _check(gallery: np.ndarray, asked: np.ndarray, k: int, device: str) -> None:
    same = (_ours(gallery, asked, k, device) == _faiss(gallery, asked, k, device)).mean()
    if same < 0.99:
        raise RuntimeError(f"neighbors: only {same:.1%} of the ids are faiss's.")
