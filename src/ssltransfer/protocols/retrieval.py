"""Retrieval within the test set by cosine (Abbasi Koohpayegani et al. 2020; protocols 4.6): recall at K."""

from __future__ import annotations

import numpy as np

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.protocols import Retrieval
from ssltransfer.protocols.base import PROTOCOLS, EvalContext, EvalResult, percent
from ssltransfer.protocols.knn import SHOWN, examples
from ssltransfer.protocols.knn_search import knn_search


@PROTOCOLS.register(Retrieval)
def evaluate(context: EvalContext) -> EvalResult:
    """Recall at K: images of which one of the K nearest others has their class.

    The query is left out of its own neighbors. A image that is alone in its class counts as missed.

    Raises:
        ArtifactError: K is not less than the number of images.
    """
    options, classes = context.options(Retrieval), context.classes()
    n, most = len(classes.test), max(options.recall_at)
    if most >= n:
        raise ArtifactError(f"{context.spec.test}: recall at {most} of only {n} images cannot be; lower `recall_at`.")
    k = min(max(most, SHOWN) + 1, n)
    names = (context.spec.test, context.spec.test)
    ids, cosines, measured = knn_search(context.stores[1], context.stores[1], k, context.devices.device, names)
    ids, cosines = without_query(ids, cosines)
    same = classes.test[ids] == classes.test[:, None]
    values = {f"r@{at}": [percent(same[:, :at].any(1).mean())] for at in options.recall_at}
    details = {"examples": examples(context, classes, ids, cosines)}
    return EvalResult(values, chance(classes.test), details, measured)


def without_query(ids: np.ndarray, cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knn (Q, k) of each image of a set in itself -> (Q, k - 1), those that are others.

    A image with more equals than k may not stand among its own neighbors; then the last one goes.
    """
    own = ids == np.arange(len(ids))[:, None]
    own[~own.any(1), -1] = True
    shape = (ids.shape[0], ids.shape[1] - 1)
    return ids[~own].reshape(shape), cosines[~own].reshape(shape)


def chance(labels: np.ndarray) -> float:
    """Percent of images whose class a random other image has."""
    sizes = np.bincount(labels)
    return percent((sizes * (sizes - 1)).sum() / (len(labels) * (len(labels) - 1)))
