"""One iteration of Lloyd's algorithm, by torch or by faiss."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ssltransfer.artefacts.files import ArtefactError
from ssltransfer.training.kmeans.nearest import Nearest
from ssltransfer.training.kmeans.points import Points

Empty = Literal["farthest", "keep", "error"]


@dataclass(frozen=True)
class Tally:
    """What an iteration did.

    Attributes:
        centroids: float32 (k, D), the new ones.
        objective: sum of squared distances to the old ones.
        moved: points in another cluster than before; None where the backend does not tell.
        empty: clusters without a point.
        refilled: how many of them were given one.
    """

    centroids: Tensor
    objective: float
    moved: int | None
    empty: int
    refilled: int


class Step(Protocol):
    """Old centroids in, new ones out; `labels` int32 (N,) or None is all it remembers."""

    labels: Tensor | None

    def __call__(self, centroids: Tensor) -> Tally:
        """One iteration over all points."""
        ...


class TorchStep:
    """Assignment by one matrix product a block; sums in float32 in a block and float64 over blocks, in fixed order.

    Args:
        points: the points.
        k: clusters.
        empty: what becomes of a cluster without points.
    """

    def __init__(self, points: Points, k: int, empty: Empty):
        self.points, self.k, self.empty = points, k, empty
        self.labels: Tensor | None = None

    @torch.inference_mode()
    def __call__(self, centroids: Tensor) -> Tally:
        """One iteration.

        Raises:
            ArtefactError: a cluster is empty and that is an error.
        """
        (n, dims), device = self.points.shape, self.points.device
        nearest = Nearest(centroids, self.points.step)
        labels = torch.empty(n, dtype=torch.int32, device=device)
        distances = torch.empty(n, device=device)
        sums = torch.zeros(self.k, dims, dtype=torch.float64, device=device)
        for span, x in self.points:
            found, distances[span], shifted = nearest(x)
            labels[span] = found
            add_sums(sums, found, shifted)
        counts = torch.bincount(labels, minlength=self.k)
        moved = n if self.labels is None else int((labels != self.labels.to(device)).sum())
        objective = float(distances.sum(dtype=torch.float64))
        empty = (counts == 0).nonzero()[:, 0]
        refilled = 0
        if len(empty) and self.empty == "error":
            raise ArtefactError(
                f"{self.points.where}: {len(empty)} of {self.k} clusters have no points (the first is "
                f"{int(empty[0])}); use a smaller k, init: k-means++, or empty: farthest."
            )
        if len(empty) and self.empty == "farthest":
            refilled = self._refill(empty.tolist(), labels, distances, sums, counts, nearest)
        full = counts > 0
        new = centroids.clone()
        new[full] = (sums[full].div_(counts[full, None]).add_(nearest.offset)).float()
        self.labels = labels
        return Tally(new, objective, moved, len(empty), refilled)

    def _refill(
        self, empty: list[int], labels: Tensor, distances: Tensor, sums: Tensor, counts: Tensor, nearest: Nearest
    ) -> int:
        """Move the farthest points into the empty clusters, ties by the lowest sample; returns how many.

        A point that is alone in its cluster, lies on its centroid, or equals one already moved is passed over.
        """
        far = distances.argsort(descending=True, stable=True)[: 2 * len(empty) + 16].sort().values
        rows = self.points.take(far.cpu().numpy())
        exact = (rows.double() - nearest.centroids[labels[far].long()].double()).square_().sum(1)
        seen: set[bytes] = set()
        waiting = iter(empty)
        for position in exact.argsort(descending=True, stable=True).tolist():
            donor, content = int(labels[far[position]]), rows[position].cpu().numpy().tobytes()
            if exact[position] == 0 or counts[donor] <= 1 or content in seen:
                continue
            cluster = next(waiting, None)
            if cluster is None:
                break
            seen.add(content)
            shifted = rows[position] - nearest.offset
            sums[donor] -= shifted
            sums[cluster] = shifted.double()
            counts[donor] -= 1
            counts[cluster] = 1
        return len(seen)


def add_sums(sums: Tensor, labels: Tensor, x: Tensor) -> None:
    """Add the points of a block to the sums of their clusters, in an order that does not vary.

    Args:
        sums: float64 (k, D), added to.
        labels: int64 (B,).
        x: float32 (B, D).
    """
    order = labels.argsort(stable=True)
    present, lengths = torch.unique_consecutive(labels[order], return_counts=True)
    if x.is_cuda:
        parts = torch.segment_reduce(x[order], "sum", lengths=lengths, axis=0)
    else:
        rows = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        shape = (len(present), len(x))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*beta state.*")
            one_hot = torch.sparse_csr_tensor(rows, order, torch.ones(len(x)), size=shape, check_invariants=False)
        parts = one_hot @ x
    if len(present) == len(sums):
        sums += parts
    else:
        sums[present] = sums[present].add_(parts)


class FaissStep:
    """One iteration of faiss.Kmeans over all points, which it needs in host memory as float32.

    faiss refills an empty cluster by splitting a large one, and does not tell which points moved.

    Raises:
        ArtefactError: faiss is missing, the points do not fit, or `empty` asks for what faiss cannot do.
    """

    labels: Tensor | None = None

    def __init__(self, points: Points, k: int, empty: Empty, seed: int, budget: int):
        try:
            import faiss
        except ImportError:
            raise ArtefactError("backend: faiss is not installed here; use backend: torch.") from None
        if empty == "keep":
            raise ArtefactError("backend: faiss cannot keep an empty cluster; use backend: torch or empty: farthest.")
        size = 4 * points.shape[0] * points.shape[1]
        if size > budget:
            raise ArtefactError(
                f"{points.where}: backend faiss needs all points in memory as float32, {size >> 20} MB, and the budget "
                f"is {budget >> 20} MB; use backend: torch, which reads them in pieces."
            )
        faiss.omp_set_num_threads(torch.get_num_threads())
        self._faiss, self.k, self.seed, self.empty, self.where = faiss, k, seed, empty, points.where
        self.device = points.device
        self._x = np.empty(points.shape, np.float32)
        for span, x in points:
            self._x[span] = x.cpu().numpy()

    def __call__(self, centroids: Tensor) -> Tally:
        """One iteration.

        Raises:
            ArtefactError: a cluster is empty and that is an error.
        """
        n, dims = self._x.shape
        engine: Any = self._faiss.Kmeans(
            dims,
            self.k,
            niter=1,
            seed=self.seed % 2**31,
            gpu=self.device.type == "cuda",
            max_points_per_centroid=n,  # the default of 256 silently trains on a sample
            min_points_per_centroid=1,
        )
        engine.train(self._x, init_centroids=centroids.cpu().numpy())
        stats = engine.iteration_stats[0]
        empty = int(stats["nsplit"])
        if empty and self.empty == "error":
            raise ArtefactError(
                f"{self.where}: {empty} of {self.k} clusters have no points; use a smaller k, init: k-means++, or "
                "empty: farthest."
            )
        new = torch.from_numpy(engine.centroids.copy()).to(self.device)
        return Tally(new, float(stats["obj"]), None, empty, empty)
