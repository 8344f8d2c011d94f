"""Nearest neighbors by cosine (Abbasi Koohpayegani et al. 2020; protocols 4.6): gallery train, queries test, exact."""

from typing import Any

import numpy as np

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.protocols import Knn
from ssltransfer.kmeans import SubsetSource
from ssltransfer.protocols.base import PROTOCOLS, Classes, EvalContext, EvalResult, evenly_spaced
from ssltransfer.protocols.classification_scores import accuracy_of, per_class_metrics
from ssltransfer.protocols.knn_search import knn_search
from ssltransfer.protocols.subsets import labeled_subsets

EXAMPLES, SHOWN = 8, 5  # test images in the report, neighbors of each


@PROTOCOLS.register(Knn)
def evaluate(context: EvalContext) -> EvalResult:
    """Accuracy of the class of the nearest training image, or of the vote of the k nearest.

    With a label subset there is one number per seed, else one number. Of several k there are metrics of each, by one
    search.

    Raises:
        ArtifactError: k is larger than the number of labeled training images.
    """
    options, classes = context.options(Knn), context.classes()
    values: dict[str, list[float]] = {"accuracy": []}
    details: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    for chosen in labeled_subsets(context.train.paths, classes.train, options.label_subset, context.spec.seeds):
        if max(options.ks) > len(chosen):
            raise ArtifactError(
                f"{context.spec.train}: k is {max(options.ks)} but there are {len(chosen)} images with labels; lower k."
            )
        gallery = SubsetSource(context.features[0], chosen) if options.label_subset else context.features[0]
        k, names = max(*options.ks, min(SHOWN, len(chosen))), (context.spec.train, context.spec.test)
        ids, cosines, took = knn_search(gallery, context.features[1], k, context.devices.device, names)
        ids = chosen[ids]
        votes = {k: vote(classes.train[ids[:, :k]], cosines[:, :k], options.temperature) for k in options.ks}
        predicted = votes[options.ks[0]]
        values["accuracy"].append(accuracy_of(classes, predicted))
        if isinstance(options.k, tuple):
            for k, voted in votes.items():
                values.setdefault(f"k{k}", []).append(accuracy_of(classes, voted))
        if not details:
            details = per_class_metrics(classes, predicted) | {"examples": examples(context, classes, ids, cosines)}
            details["num_labeled"], measured = len(chosen), took
    return EvalResult(values, classes.chance(), details, measured)


def vote(labels: np.ndarray, cosines: np.ndarray, temperature: float | None) -> np.ndarray:
    """The label with the most votes, int (Q,), from labels and cosines (Q, k), nearest first; ties go to the nearest.

    Every neighbor has one vote, or exp(cosine / temperature) votes (Caron et al. 2021, DINO).
    """
    # Relative to the nearest: the winner is the same, and exp cannot overflow.
    weights = np.ones_like(cosines) if temperature is None else np.exp((cosines - cosines[:, :1]) / temperature)
    votes = np.stack([np.where(labels == column[:, None], weights, 0).sum(1) for column in labels.T], axis=1)
    winners: np.ndarray = labels[np.arange(len(labels)), votes.argmax(1)]
    return winners


def examples(context: EvalContext, classes: Classes, ids: np.ndarray, similarity: np.ndarray) -> list[dict[str, Any]]:
    """Some test images and their nearest neighbors in the gallery, for the report."""

    def neighbor(sample: int, cosine: float) -> dict[str, Any]:
        about = {"path": context.train.paths[sample], "class": classes.names[classes.train[sample]]}
        return {"train": sample, **about, "similarity": round(cosine, 4)}

    return [
        {
            "test": sample,
            "path": context.test.paths[sample],
            "class": classes.names[classes.test[sample]],
            "neighbors": list(map(neighbor, ids[sample, :SHOWN].tolist(), similarity[sample, :SHOWN].tolist())),
        }
        for sample in evenly_spaced(len(ids), EXAMPLES)
    ]
