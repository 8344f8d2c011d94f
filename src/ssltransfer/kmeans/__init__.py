"""k-means over more points than fit in memory (`kmeans`), by several processes, resumable.

Modules: points (where the points come from), init (initial centroids), assignment (nearest centroids), update (one
iteration), lloyd (the loop), hierarchy (clusters of clusters), sampling and duplicates (which points to keep).
"""

from ssltransfer.kmeans.assignment import assign
from ssltransfer.kmeans.duplicates import near_duplicates
from ssltransfer.kmeans.hierarchy import hierarchical_kmeans
from ssltransfer.kmeans.lloyd import Clustering, kmeans
from ssltransfer.kmeans.points import ArraySource, PointLoader, PointSource, SubsetSource
from ssltransfer.kmeans.sampling import balanced_sample
from ssltransfer.training.memory_budget import memory_budget

__all__ = [
    "ArraySource",
    "Clustering",
    "PointLoader",
    "PointSource",
    "SubsetSource",
    "assign",
    "balanced_sample",
    "hierarchical_kmeans",
    "kmeans",
    "memory_budget",
    "near_duplicates",
]
