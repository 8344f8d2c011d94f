"""Curate stage: a subset of a clustered dataset, balanced over its clusters and without near duplicates."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.files import ArtifactError, file_digest, write_text
from ssltransfer.artifacts.index import Index, read_index, write_index
from ssltransfer.artifacts.labels import Labels, read_labels
from ssltransfer.artifacts.manifest import ClusterManifest, read_manifest
from ssltransfer.artifacts.workdir import write_run_info
from ssltransfer.config.formats import CurateOptions
from ssltransfer.kmeans import balanced_sample, near_duplicates
from ssltransfer.logs import logger
from ssltransfer.training.devices import plan_devices


def run(
    spec: CurateOptions,
    *,
    data: Path,
    cluster: Path,
    labels: Path,
    output: Path,
    features: Path | None = None,
    threads: int | None = None,
) -> None:
    """Write the index of the chosen images, {dataset}.txt with a path per line, and {dataset}.skipped.tsv.

    Near duplicates are removed first. The list can be the `include` of a dataset of another configuration. Near
    duplicates are in the list of skipped files, with the image that they repeat.

    Args:
        data: index of the images that were clustered.
        cluster: manifest of the clustering.
        labels: labels of the images under it.
        features: manifest of the features of the images, needed for near duplicates.

    Raises:
        ArtifactError: an input is missing, or belongs to other images or another clustering.
    """
    started = time.monotonic()
    devices = plan_devices(threads)
    index, clustering, found = read_index(data), read_manifest(cluster, ClusterManifest), read_labels(labels)
    found.check(index, labels)
    if found.cluster != file_digest(cluster):
        raise ArtifactError(f"{labels}: labels of another clustering than {cluster}; run the label stage again.")
    clusters, skipped = np.array(found.labels), dict(index.skipped)
    if spec.max_similarity is not None:
        if features is None:
            raise ArtifactError(f"{output}: near duplicates are found by --features, which is missing.")
        store, manifest = open_features(features, index=index.fingerprint)
        if differ := [key for key, value in manifest.origin.items() if value != getattr(clustering, key)]:
            raise ArtifactError(f"{features}: not the features of {cluster} (another {' and '.join(differ)}).")
        original = near_duplicates(store, found.labels, found.distances, spec.max_similarity, device=devices.device)
        repeats = np.flatnonzero(original >= 0)
        clusters[repeats] = -1
        for sample, other in zip(repeats.tolist(), original[repeats].tolist(), strict=True):
            skipped[index.paths[sample]] = f"near duplicate of {index.paths[other]}"
        logger.info(f"{len(repeats)} of {len(index)} images are near duplicates")
    distances = found.distances if spec.choose == "nearest" else None
    total = len(index) if spec.num_images is None else spec.num_images
    chosen = balanced_sample(clusters, clustering.parents, total, seed=spec.seed, distances=distances)
    curated = replace(index.subset(chosen), skipped=skipped, spec=index.spec | {"curate": json.loads(spec.canonical())})
    write_text(output.with_suffix(".txt"), "".join(f"{path}\n" for path in curated.paths))
    write_index(output, curated, cluster=found.cluster)
    write_run_info(output, started, device=str(devices))
    logger.info(_summary(index, found, chosen, clustering.parents))


def _summary(index: Index, found: Labels, chosen: np.ndarray, parents: Sequence[np.ndarray]) -> str:
    """Images chosen, and the largest share of a cluster of the highest level before and after."""
    top = found.labels
    for above in parents:
        top = above[top]
    before, after = (np.bincount(labels).max() / len(labels) for labels in (top, top[chosen]))
    return f"{len(chosen)} of {len(index)} images; the largest cluster has {after:.1%} of them, before {before:.1%}"
