"""One iteration of Lloyd's algorithm: assign all points, move the centroids. By torch or by faiss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.kmeans.assignment import NearestCentroid, gpu_kernels
from ssltransfer.kmeans.points import PointLoader

Empty = Literal["farthest", "keep", "error"]
OFFSET_POINTS = 1024


@dataclass(frozen=True)
class LloydStats:
    """Result of an iteration."""

    centroids: Tensor  # the new ones, float32 (k, D)
    objective: float  # sum of squared distances to the old centroids
    moved: int | None  # number of points that changed cluster; None with faiss
    empty: int  # number of clusters without points
    refilled: int  # number of those that got a point


class TorchStep:
    """One matrix product per block; sums in float32 over a few blocks and in float64 beyond, in a fixed order.

    Points are centered from the first iteration on, which makes rounding errors of the products smaller. On CUDA,
    float16 points are multiplied as float16 and accumulated in float32; norms and sums are float32 or more. The only
    state is `labels`, int32 (N,), or None before the first iteration. `spherical`: centroids have the length 1.
    """

    def __init__(self, points: PointLoader, k: int, empty: Empty, *, spherical: bool = False):
        self.points, self.k, self.empty, self.spherical = points, k, empty, spherical
        self.labels: Tensor | None = None
        self._half = points.device.type == "cuda" and points.source.dtype == np.float16
        self._scale = 0.5 if self._half else 1.0
        self._offset = self._squares = torch.empty(0)

    @torch.inference_mode()
    def __call__(self, centroids: Tensor) -> LloydStats:
        """One iteration, by all ranks together.

        Raises:
            ArtifactError: a cluster is empty and `empty` is "error".
        """
        points, (n, dims), device = self.points, self.points.shape, self.points.device
        first = not len(self._squares)
        if first:
            # The mean of some points is good enough, and costs one chunk.
            self._offset = points.take(np.arange(min(n, OFFSET_POINTS))).mean(0)
            points.center(self._offset, torch.float16 if self._half else torch.float32, self._scale)
            self._squares = torch.zeros(n, device=device)
        centered = (centroids - self._offset) * self._scale
        nearest = NearestCentroid(centered, points.step, points.dtype)
        labels = torch.zeros(n, dtype=torch.int32, device=device)
        distances = torch.full((n,), -1.0, device=device)  # smaller than any distance, for points of other ranks
        sums = ClusterSums(self.k, dims, device)
        for span, x in points:
            if first:
                self._squares[span] = torch.linalg.vector_norm(x, dim=1, dtype=torch.float32).square_()
            clusters, distances[span] = nearest(x, self._squares[span])
            labels[span] = clusters
            sums.add(clusters, x)
            sums.objective += distances[span].sum(dtype=torch.float64)
            sums.moved += len(clusters) if self.labels is None else (labels[span] != self.labels[span].to(device)).sum()
        points.total(sums.flush())
        counts = sums.counts
        empty = (counts == 0).nonzero()[:, 0]
        refilled = 0
        if len(empty) and self.empty == "error":
            raise ArtifactError(
                f"{points.where}: {len(empty)} of {self.k} clusters have no points (the first is "
                f"{int(empty[0])}); use a smaller k, init: k-means++, or empty_cluster: farthest."
            )
        if len(empty) and self.empty == "farthest":
            refilled = self._refill(empty.tolist(), labels, distances, sums, centered)
        means = (sums.rows / (counts[:, None] * self._scale)).add_(self._offset).float()
        new = torch.where(counts[:, None] > 0, means, centroids)
        if self.spherical:
            new = F.normalize(new)
        self.labels = labels
        return LloydStats(new, float(sums.objective) / self._scale**2, int(sums.moved), len(empty), refilled)

    def _refill(self, empty: list[int], labels: Tensor, distances: Tensor, sums: ClusterSums, centered: Tensor) -> int:
        """Move the farthest points into the empty clusters and return their number. Ties: the lowest sample first.

        Skipped: points that are alone in their cluster, equal their centroid, or equal a point that was moved.
        """
        most = 2 * len(empty) + 16
        far = distances.argsort(descending=True, stable=True)[:most]
        own = zip(distances[far].tolist(), far.tolist(), labels[far].tolist(), strict=True)
        farthest = sorted(self.points.gather(list(own)), key=lambda point: (-point[0], point[1]))[:most]
        farthest.sort(key=lambda point: point[1])
        rows = self.points.take(np.array([sample for _, sample, _ in farthest]))
        donors = [donor for _, _, donor in farthest]
        exact = (rows.double() - centered[donors].double()).square_().sum(1)
        moved: set[bytes] = set()
        for position in exact.argsort(descending=True, stable=True).tolist():
            donor, content = donors[position], rows[position].cpu().numpy().tobytes()
            if len(moved) == len(empty):
                break
            if exact[position] == 0 or sums.counts[donor] <= 1 or content in moved:
                continue
            cluster = empty[len(moved)]
            moved.add(content)
            sums.rows[donor] -= rows[position]
            sums.rows[cluster] = rows[position].double()
            sums.counts[donor] -= 1
            sums.counts[cluster] = 1
        return len(moved)


class ClusterSums:
    """Sums of an iteration in one float64 vector, so that ranks need one all-reduce."""

    def __init__(self, k: int, dims: int, device: torch.device):
        self._flat = torch.zeros(k * dims + k + 2, dtype=torch.float64, device=device)
        self.rows = self._flat[: k * dims].view(k, dims)  # sum of the points of each cluster
        self.counts = self._flat[k * dims : -2]  # number of points of each cluster
        self.objective, self.moved = self._flat[-2], self._flat[-1]
        self._part = torch.zeros(k, dims, device=device)
        self._clusters = torch.arange(k + 1, device=device)
        self._pending, self._flush_at = 0, max(8192, 8 * k)

    def add(self, labels: Tensor, x: Tensor) -> None:
        """Add the points of a block, (B, D), to their clusters, int64 (B,), in a deterministic order."""
        if x.is_cuda:
            order = labels.argsort(stable=True)
            # bincount, unique and segment lengths would wait for the GPU. A search in the sorted labels does not.
            starts = torch.searchsorted(labels[order], self._clusters)
            self.counts += starts.diff()
            if kernels := gpu_kernels():
                kernels.add_rows(x, order, starts, self.rows)
                return
            rows = x[order].float()
            # Without the check of the offsets, which waits.
            self._part += torch.segment_reduce(rows, "sum", offsets=starts, axis=0, initial=0, unsafe=True)
        else:
            self.counts += torch.bincount(labels, minlength=len(self.counts))
            self._part.index_add_(0, labels, x.float())
        # k x D additions in float64 after each block would take longer than the block itself.
        self._pending += len(x)
        if self._pending >= self._flush_at:
            self.flush()

    def flush(self) -> Tensor:
        """All sums so far as one vector."""
        self.rows += self._part
        self._part.zero_()
        self._pending = 0
        return self._flat


class FaissStep:
    """One iteration of faiss.Kmeans over all points in host memory, as float32.

    faiss refills an empty cluster by splitting a large one, and does not report which points moved.

    Raises:
        ArtifactError: faiss does not support `empty`, or the points do not fit in memory.
    """

    labels: Tensor | None = None

    def __init__(self, points: PointLoader, k: int, empty: Empty, seed: int, *, spherical: bool = False):
        import faiss

        if empty == "keep":
            raise ArtifactError(
                "backend: faiss cannot keep an empty cluster; use backend: torch or empty_cluster: farthest."
            )
        if points.world > 1:
            raise ArtifactError("backend: faiss works in one process; use backend: torch, or one device.")
        size = 4 * points.shape[0] * points.shape[1]
        if size > points.budget:
            raise ArtifactError(
                f"{points.where}: backend faiss needs all points in memory as float32, {size >> 20} MB, but the budget "
                f"is {points.budget >> 20} MB; use backend: torch, which reads them in blocks."
            )
        faiss.omp_set_num_threads(torch.get_num_threads())
        self._faiss, self.k, self.empty, self.where, self.device = faiss, k, empty, points.where, points.device
        self._options = faiss.ClusteringParameters()
        self._options.niter = 1
        self._options.seed = seed % 2**31
        self._options.spherical = spherical
        self._options.min_points_per_centroid = 1
        self._options.max_points_per_centroid = points.shape[0]  # the default of 256 silently trains on a sample
        # One index for all iterations: on GPUs each has its own memory for scratch and transfers.
        self._index: faiss.Index = faiss.IndexFlatL2(points.shape[1])
        if points.device.type == "cuda" and faiss.get_num_gpus() > 0:  # none in faiss-cpu
            cloning = faiss.GpuMultipleClonerOptions()
            cloning.useFloat16 = points.source.dtype == np.float16
            self._index = faiss.index_cpu_to_all_gpus(self._index, cloning)
        self._x = np.empty(points.shape, np.float32)
        for span, x in points:
            self._x[span] = x.cpu().numpy()

    def __call__(self, centroids: Tensor) -> LloydStats:
        """See `TorchStep`."""
        dims = self._x.shape[1]
        engine: Any = self._faiss.Clustering(dims, self.k, self._options)
        self._faiss.copy_array_to_vector(centroids.cpu().numpy().ravel(), engine.centroids)
        engine.train(self._x, self._index)
        stats = engine.iteration_stats.at(0)
        empty = int(stats.nsplit)
        if empty and self.empty == "error":
            raise ArtifactError(
                f"{self.where}: {empty} of {self.k} clusters have no points; use a smaller k, init: k-means++, or "
                "empty_cluster: farthest."
            )
        new = self._faiss.vector_to_array(engine.centroids).reshape(self.k, dims)
        return LloydStats(torch.from_numpy(new).to(self.device), float(stats.obj), None, empty, empty)
