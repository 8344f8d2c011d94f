"""Label stage: the nearest centroid of each image of a dataset."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.files import ArtifactError, file_digest, read_json
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.artifacts.labels import Labels, write_labels
from ssltransfer.artifacts.workdir import write_run_info
from ssltransfer.config.entities import Features
from ssltransfer.kmeans import PointLoader, PointSource, assign, memory_budget
from ssltransfer.logs import logger
from ssltransfer.training.devices import Devices, plan_devices
from ssltransfer.training.extraction import FeatureExtractor, StreamingSource

BACKBONE = ("model", "layer", "layer_shape", "pool")


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
        cluster: manifest of the clustering.
        index: index of the images to label.
        output: parquet file of labels.
        features: manifest of the features of those images, of the clustered layer.
        model: instead of features, manifest of the model whose features were clustered.
        threads: CPU threads.

    Raises:
        ArtifactError: the features are of another model, layer, pooling or index than the clustering's, a value is
            not finite, or not exactly one of features and model is given.
        LayerError: the model has no such layer, or it cannot be pooled.
    """
    started = time.monotonic()
    devices = plan_devices(threads)
    images = read_index(index)
    clustering = read_json(cluster)
    if features and not model:
        where, (source, about) = features, _stored(features, images)
    elif model and not features:
        where, (source, about) = model, _passing(spec, model, images, devices)
    else:
        raise ArtifactError(f"{output}: give either --features (a store to read) or --model (to compute them).")
    centroids = read_centroids(cluster, clustering)
    _check_backbone(cluster, clustering, where, about)
    points = PointLoader(
        source,
        len(centroids),
        normalize=clustering["l2_normalize"],
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
    store, about = open_features(features, index=images.fingerprint)
    return store, {**about, "pool": about["spec"].get("pool")}


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


def read_centroids(cluster: Path, clustering: dict[str, Any]) -> np.ndarray:
    """float32 (k, D) beside a manifest of clustering.

    Raises:
        ArtifactError: it is not the manifest of a clustering, or the centroids are missing or have changed.
    """
    if clustering.get("stage") != "cluster":
        raise ArtifactError(f"{cluster}: not a manifest of a clustering.")
    file = cluster.parent / "centroids.npy"
    if not file.is_file() or file_digest(file) != clustering["centroids"]:
        raise ArtifactError(f"{file}: missing or not the file of {cluster}; run the cluster stage again.")
    centroids: np.ndarray = np.load(file)
    return centroids


def _check_backbone(cluster: Path, clustering: dict[str, Any], where: Path, about: dict[str, Any]) -> None:
    differ = [key for key in BACKBONE if about[key] != clustering.get(key)]
    if differ:
        raise ArtifactError(
            f"{where}: features of another backbone than {cluster} was made of (another {' and '.join(differ)}); "
            "label with features of the same model and layer."
        )
