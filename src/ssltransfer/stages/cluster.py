"""Cluster stage: k-means on the features of all images of a dataset."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.files import atomic_write, file_digest, write_text
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.entities import Cluster
from ssltransfer.kmeans import hierarchical_kmeans
from ssltransfer.logs import logger
from ssltransfer.training.checkpoint import Checkpoint
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.loggers import CurveLoggers


def run(spec: Cluster, *, features: Path, output: Path, threads: int | None = None) -> None:
    """Cluster a feature store and write {output's folder}/centroids.npy, curve.jsonl and the manifest.

    With `levels` it also clusters the centroids and writes level2.npy, level3.npy, ...

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

        def checkpoint_of(level: int, step: int) -> Checkpoint:
            name = f"checkpoint-{level + 1}-{step}.pt" if level or step else "checkpoint.pt"
            return Checkpoint(work.folder / name, rank=devices.rank, world=devices.world)

        loggers = CurveLoggers(None if devices.rank else work.folder)

        def save_curve(rows: list[dict[str, Any]]) -> None:
            loggers.log(rows)
            if devices.rank == 0:
                (work.folder / "curve.jsonl").write_text(_lines(rows), encoding="utf-8")

        found, *above = hierarchical_kmeans(
            store,
            (spec.k, *spec.levels),
            resample=spec.resample,
            resample_points=spec.resample_points,
            checkpoint_of=checkpoint_of,
            init=spec.init,
            max_iter=spec.max_iter,
            tolerance=spec.tolerance,
            empty_cluster=spec.empty_cluster,
            l2_normalize=spec.l2_normalize,
            spherical=spec.spherical,
            backend=spec.backend,
            seed=spec.seed,
            device=devices.device,
            where=str(features),
            rank=devices.rank,
            world=devices.world,
            save_curve=save_curve,
        )
        if devices.rank:
            return
        centroids, curve = output.parent / "centroids.npy", output.parent / "curve.jsonl"
        _save(centroids, found.centroids)
        levels = [output.parent / f"level{number}.npy" for number in range(2, len(above) + 2)]
        for path, level in zip(levels, above, strict=True):
            _save(path, level.centroids)
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
        if above:
            content["levels"] = [
                {"centroids": file_digest(path), "parents": level.labels.tolist(), "objective": level.objective}
                for path, level in zip(levels, above, strict=True)
            ]
        logger.info(
            f"k-means: {n} points in {spec.k} clusters of {found.sizes.min()} to {found.sizes.max()}, "
            f"mean squared distance {found.objective / n:.6g}"
        )
        files = ("centroids.npy", "curve.jsonl", *(path.name for path in levels))
        work.finish(content, files=files, device=str(devices), residency=found.residency)
        for leftover in (*work.folder.glob("checkpoint*.pt"), work.folder / "curve.jsonl"):
            leftover.unlink(missing_ok=True)


def _save(path: Path, values: np.ndarray) -> None:
    with atomic_write(path) as beside, beside.open("wb") as file:
        np.save(file, values)


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
