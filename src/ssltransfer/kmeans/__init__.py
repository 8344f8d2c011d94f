"""k-means over more points than fit in memory (`kmeans`), by several processes, resumable.

Modules: points (where the points come from), init (initial centroids), assignment (nearest centroids), update (one
iteration), lloyd (the loop).
"""

from ssltransfer.kmeans.assignment import assign
from ssltransfer.kmeans.lloyd import Clustering, kmeans
from ssltransfer.kmeans.points import ArraySource, PointLoader, PointSource, SubsetSource
from ssltransfer.training.memory_budget import memory_budget

__all__ = [
    "ArraySource",
    "Clustering",
    "PointLoader",
    "PointSource",
    "SubsetSource",
    "assign",
    "kmeans",
    "memory_budget",
]
