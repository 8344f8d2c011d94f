"""A gallery of all clusters: the images nearest to each centroid, its size and its classes."""

from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from ssltransfer.artifacts.index import Index
from ssltransfer.artifacts.labels import Labels
from ssltransfer.report.thumbnails import sheets, tiles

IMAGES, COLUMNS = 12, 6  # of a cluster; six columns fit a phone
THUMBNAILS = 4500  # in a gallery
MAX_BYTES = 8 << 20  # of all images in a page


@dataclass(frozen=True)
class ClusterView:
    """A cluster with images.

    Attributes:
        shown: number of images in `uri`, the nearest to the centroid first.
        classes: the most frequent true classes and their numbers of images.
        purity: share of its labeled images that have the most frequent class, in %; None without labels.
    """

    number: int
    size: int
    shown: int
    classes: list[tuple[str, int]]
    purity: float | None
    uri: str | None


def build_gallery(index: Index, labels: Labels, threads: int | None = None) -> list[ClusterView]:
    """Every cluster with an image, the largest first; ties in the order of their numbers.

    The number of images of each is limited so that the gallery has at most `THUMBNAILS`.
    """
    sizes = labels.sizes
    clusters = [cluster for cluster in np.argsort(-sizes, kind="stable").tolist() if sizes[cluster]]
    most = max(1, min(IMAGES, THUMBNAILS // max(1, len(clusters))))
    # By cluster, then by distance.
    members = np.split(np.lexsort((labels.distances, labels.labels)), np.cumsum(sizes)[:-1])
    nearest = [members[cluster][:most] for cluster in clusters[:THUMBNAILS]]
    thumbnails = tiles(index, np.concatenate(nearest).tolist() if nearest else [], threads=threads)
    groups = np.split(thumbnails, np.cumsum([len(samples) for samples in nearest])[:-1])
    uris = sheets(groups if nearest else [], COLUMNS, MAX_BYTES)
    return [
        _view(index, cluster, members[cluster], 0 if samples is None else len(samples), uri)
        for cluster, samples, uri in zip_longest(clusters, nearest, uris)
    ]


def _view(index: Index, cluster: int, members: np.ndarray, shown: int, uri: str | None) -> ClusterView:
    counts = Counter(label for label in index.labels[members].tolist() if label >= 0)
    classes = [(index.classes[label], n) for label, n in counts.most_common(3)]
    purity = 100 * classes[0][1] / counts.total() if classes else None
    return ClusterView(cluster, len(members), shown, classes, purity, uri)
