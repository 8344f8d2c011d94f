"""Protocols on cached features: neighbors, clusters, logistic regression, retrieval."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.protocols.base import FeatureProtocol

USUAL_ITERATIONS = 200  # of a fit by L-BFGS, for cost estimates: 40 to 470 in the demo

Neighbors = Annotated[int, Field(ge=1)]


class Knn(FeatureProtocol):
    """k nearest neighbors by cosine on cached features."""

    name: Literal["knn"] = "knn"
    reference = "Abbasi Koohpayegani et al. 2020; protocols 4.6"
    k: Neighbors | Annotated[tuple[Neighbors, ...], Field(min_length=1)] = Field(
        1,
        description="If more than 1: majority vote, ties to the nearest. Of several, such as [10, 20], `accuracy` is "
        "of the first, and the metrics k10 and k20 are of each.",
    )
    temperature: float | None = Field(
        None, gt=0, description="Votes are weighted by exp(cosine / temperature); DINO: k 20, temperature 0.07."
    )

    @property
    def ks(self) -> tuple[int, ...]:
        """All values of k."""
        return self.k if isinstance(self.k, tuple) else (self.k,)


class ClusterAlignment(FeatureProtocol):
    """k-means on training features, clusters matched to classes by the Hungarian method."""

    name: Literal["cluster-alignment"] = "cluster-alignment"
    reference = "Abbasi Koohpayegani et al. 2020; protocols 4.6"
    k: int | None = Field(None, ge=2, description="Default: the number of classes (ImageNet: 1000).")
    max_iter: int = Field(20, ge=1)

    def flops(self, train: int, test: int, dims: int, classes: int) -> float:
        """Those of k-means."""
        return 2.0 * train * dims * (self.k or classes) * self.max_iter


NumClusters = Annotated[int, Field(ge=2)]


class ClusterQuality(FeatureProtocol):
    """Silhouette of k-means clusters and their stability over random starts, without labels: which k is good?"""

    name: Literal["cluster-quality"] = "cluster-quality"
    reference = "Rousseeuw 1987 (silhouette); Hubert & Arabie 1985 (adjusted Rand index); protocols 4.6"
    needs_train = False
    label_type = None
    primary_metric = "silhouette"
    label_subset: None = None
    k: NumClusters | Annotated[tuple[NumClusters, ...], Field(min_length=1)] | None = Field(
        None,
        description="Number of clusters. Of several, such as [50, 200], `silhouette` and `stability` are of the first, "
        "and the metrics k50-silhouette, k50-stability, ... are of each. Default: a 500th, 200th, 100th, 50th and "
        "20th of the images.",
    )
    starts: int = Field(3, ge=2, description="Runs of k-means whose labels are compared in pairs.")
    max_iter: int = Field(20, ge=1)
    init: Literal["random", "k-means++", "pca"] = "random"
    l2_normalize: bool = Field(True, description="Divide each feature by its length.")

    def ks(self, images: int) -> tuple[int, ...]:
        """All values of k for a number of images."""
        if self.k is None:
            return tuple(sorted({max(2, images // share) for share in (500, 200, 100, 50, 20)}))
        return self.k if isinstance(self.k, tuple) else (self.k,)

    def flops(self, train: int, test: int, dims: int, classes: int) -> float:
        """Those of k-means."""
        return 2.0 * test * dims * sum(self.ks(test)) * self.max_iter * self.starts


L2 = Annotated[float, Field(ge=0)]


class LogReg(FeatureProtocol):
    """L2-regularized logistic regression by L-BFGS on cached features."""

    name: Literal["logreg"] = "logreg"
    version = 2
    reference = "Kolesnikov et al. 2019; protocols 4.5"
    l2: L2 | Annotated[tuple[L2, ...], Field(min_length=1)] | None = Field(
        None,
        description="lambda in mean loss + lambda*||W||^2; default 100/(M*C). Of several values the one with the best "
        "accuracy on a validation tenth of each class is selected, and refitted on all images.",
    )
    max_iter: int = Field(800, ge=1)
    standardize: bool = False

    def flops(self, train: int, test: int, dims: int, classes: int) -> float:
        """Those of the logits and their gradients, in each iteration of each fit."""
        fits = 1 + len(self.l2) if isinstance(self.l2, tuple) else 1
        return 4.0 * train * dims * classes * min(self.max_iter, USUAL_ITERATIONS) * fits


class Retrieval(FeatureProtocol):
    """Retrieval within the test set: recall at K."""

    name: Literal["retrieval"] = "retrieval"
    reference = "Abbasi Koohpayegani et al. 2020; protocols 4.6"
    needs_train = False
    primary_metric = "r@1"
    label_subset: None = None
    recall_at: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 2, 4, 8), min_length=1, description="The values of K."
    )

    @model_validator(mode="after")
    def _has_headline(self) -> Self:
        if 1 not in self.recall_at:
            raise ValueError(f"recall_at {list(self.recall_at)} must hold 1, the primary metric")
        return self
