"""One iteration of Lloyd's algorithm, by torch or by faiss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.kmeans.nearest import Nearest
from ssltransfer.kmeans.points import PointLoader

Empty = Literal["farthest", "keep", "error"]
OFFSET_POINTS = 1024


@dataclass(frozen=True)
class LloydStats:
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

    def __call__(self, centroids: Tensor) -> LloydStats:
        """One iteration over all points."""
        ...


class TorchStep:
    """Assignment by one matrix product a block; sums in float32 over some blocks and float64 beyond, in fixed order.

    Points are shifted from the first iteration on, since products of centerd values lose fewer digits. On CUDA points
    and centroids are multiplied as float16 and summed in float32; lengths and sums are never halved.

    Args:
        points: the points; they are shifted.
        k: clusters.
        empty: what becomes of a cluster without points.
    """

    def __init__(self, points: PointLoader, k: int, empty: Empty):
        self.points, self.k, self.empty = points, k, empty
        self.labels: Tensor | None = None
        self._half = points.device.type == "cuda" and points.source.dtype == np.float16
        self._scale = 0.5 if self._half else 1.0
        self._offset = self._squares = torch.empty(0)

    def _center(self) -> None:
        # To a place amid the points, at the price of one chunk.
        self._offset = self.points.take(np.arange(min(self.points.shape[0], OFFSET_POINTS))).mean(0)
        self.points.center(self._offset, torch.float16 if self._half else torch.float32, self._scale)
        self._squares = torch.zeros(self.points.shape[0], device=self.points.device)

    @torch.inference_mode()
    def __call__(self, centroids: Tensor) -> LloydStats:
        """One iteration, by all ranks together.

        Raises:
            ArtifactError: a cluster is empty and that is an error.
        """
        points, (n, dims), device = self.points, self.points.shape, self.points.device
        first = not len(self._squares)
        if first:
            self._center()
        inside = (centroids - self._offset) * self._scale
        nearest = Nearest(inside, points.step, points.dtype)
        labels = torch.zeros(n, dtype=torch.int32, device=device)
        distances = torch.full((n,), -1.0, device=device)  # of other ranks' points: below any
        sums = ClusterSums(self.k, dims, device)
        for span, x in points:
            if first:
                self._squares[span] = torch.linalg.vector_norm(x, dim=1, dtype=torch.float32).square_()
            found, distances[span] = nearest(x, self._squares[span])
            labels[span] = found
            sums.add(found, x)
            sums.objective += distances[span].sum(dtype=torch.float64)
            sums.moved += len(found) if self.labels is None else (labels[span] != self.labels[span].to(device)).sum()
        points.total(sums.whole())
        counts = sums.counts
        empty = (counts == 0).nonzero()[:, 0]
        refilled = 0
        if len(empty) and self.empty == "error":
            raise ArtifactError(
                f"{points.where}: {len(empty)} of {self.k} clusters have no points (the first is "
                f"{int(empty[0])}); use a smaller k, init: k-means++, or empty: farthest."
            )
        if len(empty) and self.empty == "farthest":
            refilled = self._refill(empty.tolist(), labels, distances, sums, inside)
        full = counts > 0
        new = centroids.clone()
        new[full] = (sums.rows[full].div_(counts[full, None] * self._scale).add_(self._offset)).float()
        self.labels = labels
        return LloydStats(new, float(sums.objective) / self._scale**2, int(sums.moved), len(empty), refilled)

    def _refill(self, empty: list[int], labels: Tensor, distances: Tensor, sums: ClusterSums, inside: Tensor) -> int:
        """Move the farthest points into the empty clusters, ties by the lowest sample; returns how many.

        A point that is alone in its cluster, lies on its centroid, or equals one already moved is passed over.
        """
        most = 2 * len(empty) + 16
        far = distances.argsort(descending=True, stable=True)[:most]
        own = zip(distances[far].tolist(), far.tolist(), labels[far].tolist(), strict=True)
        found = sorted(self.points.gather(list(own)), key=lambda point: (-point[0], point[1]))[:most]
        found.sort(key=lambda point: point[1])
        rows = self.points.take(np.array([sample for _, sample, _ in found]))
        donors = [donor for _, _, donor in found]
        exact = (rows.double() - inside[donors].double()).square_().sum(1)
        seen: set[bytes] = set()
        waiting = iter(empty)
        for position in exact.argsort(descending=True, stable=True).tolist():
            donor, content = donors[position], rows[position].cpu().numpy().tobytes()
            if exact[position] == 0 or sums.counts[donor] <= 1 or content in seen:
                continue
            cluster = next(waiting, None)
            if cluster is None:
                break
            seen.add(content)
            sums.rows[donor] -= rows[position]
            sums.rows[cluster] = rows[position].double()
            sums.counts[donor] -= 1
            sums.counts[cluster] = 1
        return len(seen)


class ClusterSums:
    """What an iteration adds up, in one float64 vector, so that ranks need one exchange.

    Attributes:
        rows: (k, D), sums of the points of each cluster.
        counts: (k,), points of each.
        objective, moved: scalars.
    """

    def __init__(self, k: int, dims: int, device: torch.device):
        self._flat = torch.zeros(k * dims + k + 2, dtype=torch.float64, device=device)
        self.rows = self._flat[: k * dims].view(k, dims)
        self.counts = self._flat[k * dims : -2]
        self.objective, self.moved = self._flat[-2], self._flat[-1]
        self._part = torch.zeros(k, dims, device=device)
        self._waiting, self._enough = 0, max(8192, 8 * k)

    def add(self, labels: Tensor, x: Tensor) -> None:
        """Add the points of a block to their clusters, in an order that does not vary.

        Args:
            labels: int64 (B,).
            x: (B, D), float32 or float16.
        """
        self.counts += torch.bincount(labels, minlength=len(self.counts))
        if x.is_cuda:
            order = labels.argsort(stable=True)
            present, lengths = torch.unique_consecutive(labels[order], return_counts=True)
            self._part[present] += torch.segment_reduce(x[order].float(), "sum", lengths=lengths, axis=0)
        else:
            self._part.index_add_(0, labels, x.float())
        # k x D additions in float64 for each block would take longer than the block's own.
        self._waiting += len(x)
        if self._waiting >= self._enough:
            self.whole()

    def whole(self) -> Tensor:
        """The vector with everything added so far."""
        self.rows += self._part
        self._part.zero_()
        self._waiting = 0
        return self._flat


class FaissStep:
    """One iteration of faiss.Kmeans over all points, which it needs in host memory as float32.

    faiss refills an empty cluster by splitting a large one, and does not tell which points moved.

    Raises:
        ArtifactError: faiss is missing, the points do not fit, or `empty` asks for what faiss cannot do.
    """

    labels: Tensor | None = None

    def __init__(self, points: PointLoader, k: int, empty: Empty, seed: int, budget: int):
        try:
            import faiss
        except ImportError:
            raise ArtifactError("backend: faiss is not installed here; use backend: torch.") from None
        if empty == "keep":
            raise ArtifactError("backend: faiss cannot keep an empty cluster; use backend: torch or empty: farthest.")
        if points.world > 1:
            raise ArtifactError("backend: faiss works in one process; use backend: torch, or one device.")
        size = 4 * points.shape[0] * points.shape[1]
        if size > budget:
            raise ArtifactError(
                f"{points.where}: backend faiss needs all points in memory as float32, {size >> 20} MB, and the budget "
                f"is {budget >> 20} MB; use backend: torch, which reads them in pieces."
            )
        faiss.omp_set_num_threads(torch.get_num_threads())
        self._faiss, self.k, self.seed, self.empty, self.where = faiss, k, seed, empty, points.where
        self.device = points.device
        self._x = np.empty(points.shape, np.float32)
        for span, x in points:
            self._x[span] = x.cpu().numpy()

    def __call__(self, centroids: Tensor) -> LloydStats:
        """One iteration.

        Raises:
            ArtifactError: a cluster is empty and that is an error.
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
            raise ArtifactError(
                f"{self.where}: {empty} of {self.k} clusters have no points; use a smaller k, init: k-means++, or "
                "empty: farthest."
            )
        new = torch.from_numpy(engine.centroids.copy()).to(self.device)
        return LloydStats(new, float(stats["obj"]), None, empty, empty)
