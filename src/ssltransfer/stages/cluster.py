"""Cluster stage: k-means on the features of all images of a dataset."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.files import atomic_write, file_digest, write_text
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.entities import Cluster
from ssltransfer.kmeans import kmeans
from ssltransfer.logs import logger
from ssltransfer.training.checkpoint import Checkpoint
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.loggers import CurveLoggers


def run(spec: Cluster, *, features: Path, output: Path, threads: int | None = None) -> None:
    """Cluster a feature store and write {output's folder}/centroids.npy, curve.jsonl and the manifest.

    Every iteration uses all points (Noroozi et al. 2018, implementation details; protocols 3.1). Points that do not
    fit in SSLTRANSFER_MEMORY_MB (default: half of the free memory) are read again in each iteration.

    Raises:
        ArtifactError: the features are missing or not finite, there are fewer than k distinct points, a cluster is
            empty with `empty_cluster: error`, or too little memory is free.
    """
    with WorkDir("cluster", output, spec.canonical(), {"features": features}) as work:
        if work.is_cached():
            return
        devices = plan_devices(threads)
        store, source = open_features(features)
        checkpoint = Checkpoint(work.folder / "checkpoint.pt", rank=devices.rank, world=devices.world)

        loggers = CurveLoggers(None if devices.rank else work.folder)

        def save_curve(rows: list[dict[str, Any]]) -> None:
            loggers.log(rows)
            if devices.rank == 0:
                (work.folder / "curve.jsonl").write_text(_lines(rows), encoding="utf-8")

        with checkpoint:
            found = kmeans(
                store,
                spec.k,
                init=spec.init,
                max_iter=spec.max_iter,
                tolerance=spec.tolerance,
                empty_cluster=spec.empty_cluster,
                l2_normalize=spec.l2_normalize,
                backend=spec.backend,
                seed=spec.seed,
                device=devices.device,
                checkpoint=checkpoint,
                where=str(features),
                rank=devices.rank,
                world=devices.world,
                save_curve=save_curve,
            )
        if devices.rank:
            return
        centroids, curve = output.parent / "centroids.npy", output.parent / "curve.jsonl"
        with atomic_write(centroids) as beside, beside.open("wb") as file:
            np.save(file, found.centroids)
        write_text(curve, _lines(found.curve))
        n, dims = store.shape
        content: dict[str, Any] = {
            "centroids": file_digest(centroids),
            "curve": file_digest(curve),
            "k": spec.k,
            "points": n,
            "dims": dims,
            "sizes": found.sizes.tolist(),
            "empty": int((found.sizes == 0).sum()),
            "objective": found.objective,
            "iterations": len(found.curve),
            "stopped": found.stopped,
            "backend": spec.backend,
            "seed": spec.seed,
            "l2_normalize": spec.l2_normalize,
            "index": source.index,
            **source.origin,
        }
        logger.info(
            f"k-means: {n} points in {spec.k} clusters of {found.sizes.min()} to {found.sizes.max()}, "
            f"mean squared distance {found.objective / n:.6g}"
        )
        work.finish(content, files=("centroids.npy", "curve.jsonl"), device=str(devices), residency=found.residency)
        for leftover in (checkpoint.file, work.folder / "curve.jsonl"):
            leftover.unlink(missing_ok=True)


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
