"""Label: the nearest centroid of each picture of any dataset."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssltransfer.artefacts.features import open_features
from ssltransfer.artefacts.files import ArtefactError, digest_of, read_json
from ssltransfer.artefacts.index import Index, read_index
from ssltransfer.artefacts.labels import Labels, write_labels
from ssltransfer.artefacts.work import record_run
from ssltransfer.config.entities import Features
from ssltransfer.training.devices import Devices, plan_devices
from ssltransfer.training.extraction import Extraction, PassingRows
from ssltransfer.training.kmeans import Points, Source, assign, memory_budget

TRUNK = ("model", "layer", "layer_shape", "pool")


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
    """Write the nearest centroid of each picture and the squared distance to it; ties go to the lowest cluster.

    The features are read from a store, or computed by a model chunk by chunk and not kept: the labels are the same.

    Args:
        spec: version of this stage, which has no options of its own; with a model, the features to compute.
        cluster: manifest of the clustering.
        index: index of the pictures to label.
        output: parquet file of labels.
        features: manifest of the features of those pictures, by the trunk that was clustered.
        model: manifest of the model that was clustered, instead of features.
        threads: CPU threads.

    Raises:
        ArtefactError: the features come from another trunk, layer or pooling than the clustering's or belong to
            another index, a value is not finite, or not just one of features and model is given.
        LayerError: the model has no such layer, or it cannot be pooled.
    """
    started = time.monotonic()
    devices = plan_devices(threads)
    pictures = read_index(index)
    clustering = read_json(cluster)
    if features and not model:
        where, (source, about) = features, _stored(features, pictures)
    elif model and not features:
        where, (source, about) = model, _passing(spec, model, pictures, devices)
    else:
        raise ArtefactError(f"{output}: give either --features (a store to read) or --model (to compute them).")
    centroids = read_centroids(cluster, clustering)
    _check_trunk(cluster, clustering, where, about)
    points = Points(
        source,
        len(centroids),
        normalise=clustering["normalise"],
        device=devices.device,
        budget=memory_budget(),
        where=str(where),
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
    measured = source.progress.close() if isinstance(source, PassingRows) else {}
    record_run(output, started, device=str(devices), **measured)


def _stored(features: Path, pictures: Index) -> tuple[Source, dict[str, Any]]:
    store, about = open_features(features, index=pictures.fingerprint)
    return store, {**about, "pool": about["spec"].get("pool")}


def _passing(spec: str, model: Path, pictures: Index, devices: Devices) -> tuple[Source, dict[str, Any]]:
    features = Features.parse(spec)
    extraction = Extraction(features, model, devices)
    print(f"{len(pictures)} pictures, {features.layer} {extraction.shape}, not stored; {devices}", flush=True)
    return PassingRows(extraction, pictures), {
        "model": extraction.digest,
        "layer": features.layer,
        "layer_shape": list(extraction.shape),
        "pool": json.loads(features.canonical()).get("pool"),
    }


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


def _check_trunk(cluster: Path, clustering: dict[str, Any], where: Path, about: dict[str, Any]) -> None:
    differ = [key for key in TRUNK if about[key] != clustering.get(key)]
    if differ:
        raise ArtefactError(
            f"{where}: features of another trunk than {cluster} was made of (another {' and '.join(differ)}); "
            "label with features of the same model and layer."
        )
