"""Features stage: write the features of a layer for each image into a chunked store."""

import json
import re
from pathlib import Path
from typing import Any

from ssltransfer.artifacts.features import STORE, FeatureStore, Writer
from ssltransfer.artifacts.files import ArtifactError, file_digest, write_json
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.artifacts.workdir import MANIFEST, WorkDir
from ssltransfer.config.entities import Features
from ssltransfer.logs import logger
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.extraction import FeatureExtractor, FeatureReader


def run(
    spec: Features,
    *,
    data: Path,
    output: Path,
    model: Path | None = None,
    shard: str | None = None,
    threads: int | None = None,
) -> None:
    """Extract the features of every image of an index, in index order. Only missing chunks are computed.

    Several devices share the missing chunks. A job with a shard computes its part of the chunks into the same store.
    The job without a shard then computes the missing chunks and writes the manifest. The bytes do not depend on this
    division.

    Args:
        model: manifest of the model; None for features of a file.
        output: manifest.json of the features. For a shard another file beside it, for the digests of its chunks.
        shard: "3-of-8" or "3/8".

    Raises:
        ArtifactError: a value overflows the precision, an input is invalid, an image has no vector in the file, or the
            disk is full.
        LayerError: the model has no such layer, or it cannot be pooled.
    """
    number, shards = _shard(shard)
    name = f"{number + 1}-of-{shards}" if shard else ""
    manifest = output.with_name(MANIFEST) if shard else output
    with WorkDir("features", manifest, spec.canonical(), {"model": model, "data": data}, shard=name) as work:
        path = work.folder / STORE
        if not shard and path.is_dir() and not FeatureStore.open(path).missing() and work.is_cached():
            return
        devices = plan_devices(threads)
        index = read_index(data)
        extraction = FeatureReader(spec) if spec.file else FeatureExtractor(spec, _required(model, output), devices)
        store = FeatureStore.create(path, len(index), extraction.dims, spec.precision, compression=spec.compression)
        chunks = range(number, store.chunks, shards)
        missing = [chunk for chunk in store.missing() if chunk in chunks]
        source = spec.file.path if spec.file else spec.layer
        logger.info(
            f"{len(index)} images, {source} {extraction.shape} = {extraction.dims} dimensions, "
            f"{len(missing)} of {len(chunks)} chunks{f' of shard {name}' if shard else ''} to compute, "
            f"{len(index) * extraction.dims * store.dtype.itemsize / 1e6:.0f} MB; {devices}"
        )
        devices.barrier()  # every rank has listed the missing chunks
        measured = _fill(store, missing[devices.rank :: devices.world], extraction, index)
        store.flush()
        devices.barrier()
        if devices.rank:
            return
        if shard:
            digests = {str(chunk): file_digest(store.chunk_file(chunk)) for chunk in chunks}
            work.write_run_info(device=str(devices), **measured)
            write_json(output, {"stage": "features", "shard": name, "work": work.key, "chunks": digests})
            return
        about = {
            "model": spec.model,
            "weights": extraction.digest,
            "layer": spec.layer,
            "layer_shape": list(extraction.shape),
            "pool": json.loads(spec.canonical()).get("pool"),
            "dataset": output.parent.name,
            "classes": index.classes,
        }
        store.describe(index.paths, index.labels, about)
        content = {
            "index": index.fingerprint,
            "model": extraction.digest,
            "layer": spec.layer,
            "layer_shape": list(extraction.shape),
            "shape": list(store.shape),
            "chunks": store.digests(),
        }
        work.finish(content, device=str(devices), **measured)


def _required(model: Path | None, output: Path) -> Path:
    if model is None:
        raise ArtifactError(f"{output}: give --model, the manifest of the model.")
    return model


def _shard(text: str | None) -> tuple[int, int]:
    """Number of the shard, from 0, and number of shards."""
    if text is None:
        return 0, 1
    match = re.fullmatch(r"(\d+)(?:/|-of-)(\d+)", text)
    number, shards = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= shards:
        raise ArtifactError(f"--shard {text}: not a shard; give one such as 3/8, from 1/8 to 8/8.")
    return number - 1, shards


def _fill(
    store: FeatureStore, chunks: list[int], extraction: FeatureExtractor | FeatureReader, index: Index
) -> dict[str, Any]:
    """Compute and write chunks. Returns entries of run.json."""
    spans = [store.span(chunk) for chunk in chunks]
    progress = extraction.progress("features", spans)
    with Writer(store) as writer:
        for chunk, rows in zip(chunks, extraction.chunks(index, spans, progress), strict=True):
            writer.write(chunk, rows)
            progress.log(f"chunk {chunk + 1}/{store.chunks}, {writer.waiting:.0%} waiting for the writer")
    return {**progress.close(), "share_waiting_for_writer": round(writer.waiting, 3)}
