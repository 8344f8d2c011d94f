"""Label: the nearest centroid of each picture of any dataset."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssltransfer.artefacts.features import open_features
from ssltransfer.artefacts.files import ArtefactError, digest_of, read_json
from ssltransfer.artefacts.index import read_index
from ssltransfer.artefacts.labels import Labels, write_labels
from ssltransfer.artefacts.work import record_run
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.kmeans import Points, assign, memory_budget

TRUNK = ("model", "layer", "layer_shape", "pool")


def run(*, spec: str, cluster: Path, features: Path, index: Path, output: Path, threads: int | None = None) -> None:
    """Write the nearest centroid of each picture and the squared distance to it; ties go to the lowest cluster.

    Args:
        spec: version of this stage; it has no options of its own.
        cluster: manifest of the clustering.
        features: manifest of the features of the pictures to label, by the trunk that was clustered.
        index: index of those pictures.
        output: parquet file of labels.
        threads: CPU threads.

    Raises:
        ArtefactError: the features come from another trunk, layer or pooling than the clustering's or belong to
            another index, or a value is not finite.
    """
    started = time.monotonic()
    devices = plan_devices(threads)
    pictures = read_index(index)
    clustering = read_json(cluster)
    store, about = open_features(features, index=pictures.fingerprint)
    centroids = read_centroids(cluster, clustering)
    _check_trunk(cluster, clustering, features, about)
    points = Points(
        store,
        len(centroids),
        normalise=clustering["normalise"],
        device=devices.device,
        budget=memory_budget(),
        where=str(features),
        keep=False,
    )
    labels, distances = assign(points, torch.from_numpy(centroids).to(devices.device))
    found = Labels(
        paths=pictures.paths,
        labels=labels.numpy(),
        distances=distances.numpy(),
        k=len(centroids),
        index=pictures.fingerprint,
        cluster=digest_of(cluster),
    )
    print(
        f"{len(pictures)} pictures, {(found.sizes > 0).sum()} of {found.k} clusters in use, the largest holds "
        f"{found.sizes.max()}; mean squared distance {distances.mean(dtype=torch.float64):.6g}",
        flush=True,
    )
    write_labels(output, found)
    record_run(output, started, device=str(devices))


def read_centroids(cluster: Path, clustering: dict[str, Any]) -> np.ndarray:
    """float32 (k, D) beside a manifest of clustering.

    Raises:
        ArtefactError: it is no such manifest, or the centroids are missing or others.
    """
    if clustering.get("stage") != "cluster":
        raise ArtefactError(f"{cluster}: not a manifest of a clustering.")
    file = cluster.parent / "centroids.npy"
    if not file.is_file() or digest_of(file) != clustering["centroids"]:
        raise ArtefactError(f"{file}: missing or not the one of {cluster}; run the cluster stage again.")
    centroids: np.ndarray = np.load(file)
    return centroids


def _check_trunk(cluster: Path, clustering: dict[str, Any], features: Path, about: dict[str, Any]) -> None:
    ours = {**about, "pool": about["spec"].get("pool")}
    differ = [key for key in TRUNK if ours[key] != clustering.get(key)]
    if differ:
        raise ArtefactError(
            f"{features}: a feature store of another trunk than {cluster} was made of (another "
            f"{' and '.join(differ)}); label with features of the same model and layer."
        )
