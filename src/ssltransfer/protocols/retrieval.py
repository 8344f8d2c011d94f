"""Retrieval within the test set by cosine (Abbasi Koohpayegani et al. 2020; protocols 4.6): recall at K."""

import numpy as np

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.protocols import Retrieval
from ssltransfer.protocols.base import PROTOCOLS, EvalContext, EvalResult, percent
from ssltransfer.protocols.knn import SHOWN, examples
from ssltransfer.protocols.knn_search import knn_search


@PROTOCOLS.register(Retrieval)
def evaluate(context: EvalContext) -> EvalResult:
    """Recall at K: images of which one of the K nearest other images has the same class.

    The query is removed from its neighbors. The only image of a class counts as missed.

    Raises:
        ArtifactError: K is not less than the number of images.
    """
    options, classes = context.options(Retrieval), context.classes()
    n, most = len(classes.test), max(options.recall_at)
    if most >= n:
        raise ArtifactError(
            f"{context.spec.test}: recall at {most} of only {n} images is not possible; lower `recall_at`."
        )
    k, store, name = min(max(most, SHOWN) + 1, n), context.features[1], context.spec.test
    ids, cosines, measured = knn_search(store, store, k, context.devices.device, (name, name))
    ids, cosines = without_query(ids, cosines)
    values = {f"r@{at}": [percent(recall_at(classes.test, ids, at))] for at in options.recall_at}
    details = {"examples": examples(context, classes, ids, cosines)}
    return EvalResult(values, chance(classes.test), details, measured)


def recall_at(labels: np.ndarray, neighbors: np.ndarray, k: int) -> float:
    """Fraction of the images of which one of the k nearest has the same label.

    Neighbors, int (N, K), have the nearest first and do not include the image itself.
    """
    return float((labels[neighbors[:, :k]] == labels[:, None]).any(1).mean())


def without_query(ids: np.ndarray, cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Remove each image from its own neighbors: (Q, k) -> (Q, k - 1).

    An image with more than k duplicates may be missing in its neighbors; then the last one is removed.
    """
    own = ids == np.arange(len(ids))[:, None]
    own[~own.any(1), -1] = True
    return ids[~own].reshape(len(ids), -1), cosines[~own].reshape(len(ids), -1)


def chance(labels: np.ndarray) -> float:
    """Percent of pairs of different images with the same class."""
    sizes = np.bincount(labels)
    return percent((sizes * (sizes - 1)).sum() / (len(labels) * (len(labels) - 1)))
