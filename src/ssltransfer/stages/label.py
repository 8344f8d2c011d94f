"""Label stage: the nearest centroid of each image of a dataset."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.files import ArtifactError, file_digest
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.artifacts.labels import Labels, write_labels
from ssltransfer.artifacts.manifest import ClusterManifest, read_manifest
from ssltransfer.artifacts.workdir import write_run_info
from ssltransfer.config.entities import Features
from ssltransfer.kmeans import PointLoader, PointSource, assign, memory_budget
from ssltransfer.logs import logger
from ssltransfer.training.devices import Devices, plan_devices
from ssltransfer.training.extraction import FeatureExtractor, StreamingSource


def run(
    *,
    spec: str,
    cluster: Path,
    index: Path,
    output: Path,
    features: Path | None = None,
    model: Path | None = None,
    threads: int | None = None,
) -> None:
    """Write the nearest centroid of each image and the squared distance to it. Ties: the lowest cluster.

    The features are read from a store, or computed chunk by chunk and not stored. The labels are the same.

    Args:
        spec: with a model, the features to compute; otherwise the version of this stage, which has no options.
        features: manifest of the features of those images, of the clustered layer.
        model: instead of features, manifest of the model whose features were clustered.

    Raises:
        ArtifactError: the features are of another model, layer, pooling or index than the clustering's, a value is
            not finite, or not exactly one of features and model is given.
        LayerError: the model has no such layer, or it cannot be pooled.
    """
    started = time.monotonic()
    devices = plan_devices(threads)
    images = read_index(index)
    clustering = read_manifest(cluster, ClusterManifest)
    if features and not model:
        where, (source, origin) = features, _stored(features, images)
    elif model and not features:
        where, (source, origin) = model, _passing(spec, model, images, devices)
    else:
        raise ArtifactError(f"{output}: give either --features (a store to read) or --model (to compute them).")
    centroids = _read_centroids(clustering)
    differ = [key for key, value in origin.items() if value != getattr(clustering, key)]
    if differ:
        raise ArtifactError(
            f"{where}: features of another backbone than {cluster} was made of (another {' and '.join(differ)}); "
            "label with features of the same model and layer."
        )
    points = PointLoader(
        source,
        len(centroids),
        normalize=clustering.spec.normalizes,
        device=devices.device,
        budget=memory_budget(),
        where=str(where),
        keep=False,
    )
    labels, distances = assign(points, torch.from_numpy(centroids).to(devices.device))
    found = Labels(
        paths=images.paths,
        labels=labels.numpy(),
        distances=distances.numpy(),
        k=len(centroids),
        index=images.fingerprint,
        cluster=file_digest(cluster),
    )
    logger.info(
        f"{len(images)} images, {(found.sizes > 0).sum()} of {found.k} clusters in use, the largest holds "
        f"{found.sizes.max()}; mean squared distance {distances.mean(dtype=torch.float64):.6g}"
    )
    write_labels(output, found)
    measured = source.progress.close() if isinstance(source, StreamingSource) else {}
    write_run_info(output, started, device=str(devices), **measured)


def _stored(features: Path, images: Index) -> tuple[PointSource, dict[str, Any]]:
    store, manifest = open_features(features, index=images.fingerprint)
    return store, manifest.origin


def _passing(spec: str, model: Path, images: Index, devices: Devices) -> tuple[PointSource, dict[str, Any]]:
    features = Features.parse(spec)
    extraction = FeatureExtractor(features, model, devices)
    logger.info(f"{len(images)} images, {features.layer} {extraction.shape}, not stored; {devices}")
    return StreamingSource(extraction, images), {
        "model": extraction.digest,
        "layer": features.layer,
        "layer_shape": list(extraction.shape),
        "pool": json.loads(features.canonical()).get("pool"),
    }


def _read_centroids(clustering: ClusterManifest) -> np.ndarray:
    """float32 (k, D) beside the manifest of a clustering."""
    file = clustering.path.parent / "centroids.npy"
    if not file.is_file() or file_digest(file) != clustering.centroids:
        raise ArtifactError(f"{file}: missing or not the file of {clustering.path}; run the cluster stage again.")
    centroids: np.ndarray = np.load(file)
    return centroids
