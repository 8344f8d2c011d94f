"""A map of features in two dimensions."""

import warnings
from typing import Literal

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from ssltransfer.extras import import_extra

Projection = Literal["pca", "tsne", "umap"]
COMPONENTS = 50  # before t-SNE, as van der Maaten & Hinton 2008 did; before UMAP too
PERPLEXITY = 30
NEIGHBORS = 15  # of UMAP, its default
GRID = 1000


def project(features: np.ndarray, seed: int, projection: Projection = "tsne") -> np.ndarray:
    """Places of l2-normalized features (N, D) in the plane: int64 (N, 2) from 0 to 1000.

    Equal features and seeds give equal places: the sums of several threads would differ in their last bits.

    Args:
        features: float (N, D).
        seed: of the projection.
        projection: the first two principal components, or t-SNE or UMAP (McInnes et al. 2018) of the first 50.

    Raises:
        MissingExtraError: UMAP without its package.
    """
    # Before the work, so that the sentence comes at once.
    umap = import_extra("umap", "umap", "the projection umap") if projection == "umap" else None
    rows = features.astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    n = len(rows)
    if not np.ptp(rows, axis=0).any():
        return np.zeros((n, 2), np.int64)
    with threadpool_limits(1):
        places = PCA(min(COMPONENTS, *rows.shape), random_state=seed).fit_transform(rows)
        if projection == "tsne" and n > 4:
            perplexity = min(PERPLEXITY, (n - 1) / 3)
            places = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(places)
        elif umap and n > 4:
            with warnings.catch_warnings():  # one thread is what a seed asks for
                warnings.filterwarnings("ignore", "n_jobs value", UserWarning)
                mapper = umap.UMAP(n_neighbors=min(NEIGHBORS, n - 1), init="pca", random_state=seed)
                places = mapper.fit_transform(places)
    places = np.pad(places, ((0, 0), (0, 2)))[:, :2]
    spread = np.maximum(np.ptp(places, axis=0), 1e-12)
    scaled: np.ndarray = (GRID * (places - places.min(0)) / spread).round().astype(np.int64)
    return scaled
