"""A map of features in two dimensions."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

COMPONENTS = 50  # before t-SNE, as van der Maaten & Hinton 2008 did
PERPLEXITY = 30
GRID = 1000


def project(features: np.ndarray, seed: int) -> np.ndarray:
    """Places of l2-normalized features (N, D) in the plane by PCA, then t-SNE: int64 (N, 2) from 0 to 1000.

    Equal features and seeds give equal places: the sums of several threads would differ in their last bits.
    """
    rows = features.astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    n = len(rows)
    if not np.ptp(rows, axis=0).any():
        return np.zeros((n, 2), np.int64)
    with threadpool_limits(1):
        places = PCA(min(COMPONENTS, *rows.shape), random_state=seed).fit_transform(rows)
        if n > 4:
            perplexity = min(PERPLEXITY, (n - 1) / 3)
            places = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(places)
    places = np.pad(places, ((0, 0), (0, 2)))[:, :2]
    spread = np.maximum(np.ptp(places, axis=0), 1e-12)
    scaled: np.ndarray = (GRID * (places - places.min(0)) / spread).round().astype(np.int64)
    return scaled
