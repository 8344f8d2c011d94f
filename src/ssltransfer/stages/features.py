"""Features: what a layer of a model says of each picture, into a chunked store."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.artefacts.features import FeatureStore
from ssltransfer.artefacts.files import ArtefactError
from ssltransfer.artefacts.index import read_index
from ssltransfer.artefacts.work import Work
from ssltransfer.config.entities import Features
from ssltransfer.config.protocols import Pool
from ssltransfer.data.batches import load_batches, sequential_keys
from ssltransfer.models.trunk import LayerError
from ssltransfer.models.weights import Model, read_model
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.progress import Progress

BATCH = 128  # pictures a pass, at most
ACTIVATIONS = 1 << 29  # bytes of a pass's largest layer: VGG16 at 224 pixels takes 41 pictures, CaffeNet all 128


def run(spec: Features, *, model: Path, data: Path, output: Path, threads: int | None = None) -> None:
    """Extract features of every picture of an index, in index order; only chunks that are missing are computed.

    Pictures are prepared as the model's own evaluation view: short side 256, centre crop 227 or 224 (or in
    proportion), the normalisation it was trained with (Noroozi et al. 2018, implementation details; protocols 3.1).

    Args:
        spec: layer, pooling and precision.
        model: manifest of the model.
        data: index of the pictures.
        output: manifest.json of these features.
        threads: CPU threads.

    Raises:
        ArtefactError: a value does not fit the precision, or an input is not what it should be.
        LayerError: the model has no such layer, or it cannot be pooled.
    """
    with Work("features", output, spec.canonical(), {"model": [model], "data": [data]}) as work:
        path = work.folder / "store.zarr"
        if path.is_dir() and not FeatureStore.open(path).missing() and work.already_made():
            return
        devices = plan_devices(threads)
        index = read_index(data)
        loaded = read_model(model, devices.device)
        if spec.layer not in loaded.trunk.layers:
            raise LayerError(f"{model}: no layer {spec.layer!r}; it has {', '.join(loaded.trunk.layers)}.")
        shapes = loaded.trunk.shapes()
        if spec.pool and len(shapes[spec.layer]) != 3:
            raise LayerError(f"{model}: {spec.layer} is a vector and cannot be pooled; leave `pool` out.")
        shape = pooled_shape(shapes[spec.layer], spec.pool)
        dims = int(np.prod(shape))
        store = FeatureStore.create(path, len(index), dims, spec.precision, compress=spec.compress)
        missing = store.missing()
        print(
            f"{len(index)} pictures, {spec.layer} {shape} = {dims} dimensions, {len(missing)} of {store.chunks} chunks "
            f"to compute, {len(index) * dims * store.dtype.itemsize / 1e6:.0f} MB; {devices}",
            flush=True,
        )
        # A function of the trunk alone: the size of a pass may show in the last bits.
        size = max(1, min(BATCH, ACTIVATIONS // (4 * max(math.prod(one) for one in shapes.values()))))
        keys = (key for chunk in missing for key in sequential_keys(_ids(store, chunk), size))
        pin = devices.device.type == "cuda"
        batches = load_batches(index, loaded.view, keys, seed=0, workers=devices.workers, pin=pin)
        progress = Progress("features", 0, sum(-(-len(_ids(store, chunk)) // size) for chunk in missing), size)
        for chunk in missing:
            ids = _ids(store, chunk)
            rows = np.empty((len(ids), dims), store.dtype)
            for start in range(0, len(ids), size):
                waiting = time.monotonic()
                batch = next(batches).to(devices.device)
                waited = time.monotonic() - waiting
                with devices.autocast():
                    values = _extract(loaded, batch.pictures, spec)
                rows[start : start + len(values)] = _fitting(values, store.dtype, spec, model)
                progress.step(waited)
            store.write(chunk, rows)
            progress.say(f"chunk {chunk + 1}/{store.chunks}")
        measured: dict[str, Any] = dict(progress.close())
        content = {
            "index": index.fingerprint,
            "model": loaded.digest,
            "layer": spec.layer,
            "layer_shape": list(shape),
            "shape": list(store.shape),
            "chunks": store.digests(),
        }
        work.finish(content, device=str(devices), **measured)


def pooled_shape(shape: tuple[int, ...], pool: Pool | None) -> tuple[int, ...]:
    """Shape of a layer after pooling: (C, H, W) -> (C, n, n)."""
    side = (pool.max or pool.avg) if pool else None
    return (shape[0], side, side) if side and len(shape) == 3 else shape


@torch.inference_mode()
def _extract(model: Model, pictures: Tensor, spec: Features) -> np.ndarray:
    found = model.layers_of(pictures, [spec.layer])[spec.layer].float()
    if spec.pool and spec.pool.max:
        found = F.adaptive_max_pool2d(found, spec.pool.max)
    elif spec.pool and spec.pool.avg:
        found = F.adaptive_avg_pool2d(found, spec.pool.avg)
    values: np.ndarray = found.flatten(1).cpu().numpy()
    return values


def _ids(store: FeatureStore, chunk: int) -> range:
    span = store.span(chunk)
    return range(span.start, span.stop)


def _fitting(values: np.ndarray, dtype: np.dtype, spec: Features, model: Path) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ArtefactError(f"{model}: layer {spec.layer} gives values that are not finite; the model is broken.")
    largest = float(np.abs(values).max())
    if largest > float(np.finfo(dtype).max):
        raise ArtefactError(
            f"{model}: layer {spec.layer} gives values up to {largest:.0f}, which float16 cannot hold; "
            "set precision: float32."
        )
    return values.astype(dtype)
