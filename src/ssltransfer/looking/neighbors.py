"""Near-duplicates and outliers of a dataset by the cosine of their features."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ssltransfer.kmeans import PointSource
from ssltransfer.protocols.knn_search import knn_search

NEIGHBORS = 5  # of each image
ROUNDING = 1e-6  # of cosines in float32
DUPLICATE = 0.2  # chosen: a near-duplicate has at most this part of the usual distance to the fifth neighbor


@dataclass(frozen=True)
class Neighbors:
    """The nearest other images of each of N images.

    Attributes:
        ids: int64 (N, k), the nearest first.
        cosines: float32 (N, k), their cosine similarities.
    """

    ids: np.ndarray
    cosines: np.ndarray


@dataclass(frozen=True)
class Group:
    """Images that are near-duplicates of each other; `cosine` is the highest one between two of them."""

    members: list[int]
    cosine: float


def find_neighbors(source: PointSource, device: torch.device, where: str) -> Neighbors:
    """The nearest other images by cosine, exactly; `where` names the features in messages.

    Raises:
        ArtifactError: a feature is not finite, or the memory is too small.
    """
    n = source.shape[0]
    most = min(NEIGHBORS, n - 1)
    if most < 1:
        return Neighbors(np.empty((n, 0), np.int64), np.empty((n, 0), np.float32))
    ids, cosines, _ = knn_search(source, source, most + 1, device, (where, where))
    # Among many equal images the image itself may be missing; then the last one is dropped.
    own = ids == np.arange(n)[:, None]
    own[~own.any(1), -1] = True
    return Neighbors(ids[~own].reshape(n, most), cosines[~own].reshape(n, most))


def duplicate_level(neighbors: Neighbors) -> float:
    """Cosine from which two images count as near-duplicates.

    It depends on the features, because the cosines of some networks are all above 0.9: the distance 1 - cosine is
    at most a fifth of the median distance to the last neighbor. Equal features count, also where most are equal.
    """
    return 1 - max(ROUNDING, DUPLICATE * float(np.median(1 - neighbors.cosines[:, -1].astype(np.float64))))


def duplicate_groups(neighbors: Neighbors) -> list[Group]:
    """Groups of images that are linked by cosines of at least `duplicate_level`, the most similar first."""
    n = len(neighbors.ids)
    if not neighbors.ids.size:
        return []
    first, place = np.nonzero(neighbors.cosines >= duplicate_level(neighbors))
    second = neighbors.ids[first, place]
    _, component = connected_components(coo_array((np.ones(len(first)), (first, second)), (n, n)), directed=False)
    order = np.argsort(component, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(component[order])) + 1)
    groups = [Group(piece.tolist(), float(neighbors.cosines[piece, 0].max())) for piece in pieces if len(piece) > 1]
    return sorted(groups, key=lambda group: (-group.cosine, group.members))


def outliers(neighbors: Neighbors, most: int) -> list[tuple[int, float]]:
    """The images with the lowest mean cosine to their neighbors, and that mean; the lowest first."""
    if not neighbors.ids.size:
        return []
    mean = neighbors.cosines.mean(1)
    return [(int(sample), float(mean[sample])) for sample in np.argsort(mean, kind="stable")[:most]]
