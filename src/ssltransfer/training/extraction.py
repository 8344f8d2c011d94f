"""Feature extraction: the pooled activations of a layer, in chunks of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssltransfer.artifacts.features import chunk_rows
from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.artifacts.vector_file import read_vectors
from ssltransfer.config.entities import Features
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.pooling import pooled_shape
from ssltransfer.models.weights import GRID, read_model
from ssltransfer.training.devices import Devices
from ssltransfer.training.progress import Progress

BATCH = 128  # images per forward pass, at most
ACTIVATIONS = 1 << 29  # bytes of the largest layer per pass: 41 images for VGG16 at 224 pixels, 128 for CaffeNet


class FeatureExtractor:
    """Computes the features of images: a layer of a model, pooled and rounded to a precision.

    Images get the model's evaluation view: short side 256, center crop 227 or 224 (or in proportion), and the
    normalization of its training (Noroozi et al. 2018, implementation details; protocols 3.1). With `patches` the
    features are the mean over nine patches, each of which is pooled before (Kolesnikov et al. 2019; protocols 4.5).

    Attributes:
        digest: of the model's weights.
        shape: of the layer after pooling, for one image.
        dims: length of a row.
        dtype: of a row.

    Raises:
        ArtifactError: the model does not exist.
        LayerError: the model does not have the layer, or the layer cannot be pooled.
    """

    def __init__(self, spec: Features, manifest: Path, devices: Devices):
        self._spec, self._manifest, self._devices = spec, manifest, devices
        self._model = read_model(manifest, devices.device)
        backbone = self._model.backbone
        backbone.require([spec.layer], manifest)
        shapes = backbone.shapes()
        if spec.pool and len(shapes[spec.layer]) != 3:
            raise LayerError(f"{manifest}: {spec.layer} is a vector and cannot be pooled; remove `pool`.")
        self._cuda = devices.device.type == "cuda"
        # A function of the backbone alone, since the batch size may change the last bits.
        passes = GRID**2 if spec.patches else 1
        self._batch = max(1, min(BATCH, ACTIVATIONS // (4 * passes * max(math.prod(one) for one in shapes.values()))))
        self.digest = self._model.digest
        self.shape = pooled_shape(shapes[spec.layer], spec.pool)
        self.dims = math.prod(self.shape)
        self.dtype = np.dtype(spec.precision)

    def progress(self, what: str, spans: Sequence[slice]) -> Progress:
        """A progress display for these rows of an index."""
        return Progress(what, 0, sum(-(-(span.stop - span.start) // self._batch) for span in spans), self._batch)

    def chunks(self, index: Index, spans: Sequence[slice], progress: Progress) -> Iterator[np.ndarray]:
        """The features of each span of an index, (rows, dims).

        A chunk is fetched from the GPU after the next one has begun, so the GPU never waits.

        Raises:
            ArtifactError: a value is not finite or too large for the precision, or an image cannot be read.
        """
        keys = (key for span in spans for key in sequential_keys(range(span.start, span.stop), self._batch))
        workers = self._devices.workers
        view = self._model.patches_view if self._spec.patches else self._model.view
        batches = load_batches(index, view, keys, seed=0, workers=workers, pin=self._cuda)
        # Start the loader's processes here: started by a thread of k-means they would end with an error.
        first = [progress.next(batches)] if spans else []
        return self._computed(chain(first, batches), spans, progress)

    def _computed(self, batches: Iterator[Batch], spans: Sequence[slice], progress: Progress) -> Iterator[np.ndarray]:
        before: _Chunk | None = None
        for span in spans:
            chunk = _Chunk(span.stop - span.start, self.dims, self._spec.precision, self._devices.device)
            while not chunk.full:
                chunk.add(self._values(progress.next(batches)))
                progress.step()
                if before:
                    yield self._fitting(before)
                    before = None
            chunk.close()
            before = chunk
        if before:
            yield self._fitting(before)

    @torch.inference_mode()
    def _values(self, batch: Batch) -> Tensor:
        """uint8 (B, 3, S, S) -> float32 (B, dims) on the device."""
        batch = replace(batch, targets={}).to(self._devices.device, self._devices.copies)
        images = batch.images.contiguous(memory_format=torch.channels_last)
        with self._devices.autocast():
            return self._model.features_of(images, self._spec.layer, self._spec.pool, patches=self._spec.patches)

    def _fitting(self, chunk: _Chunk) -> np.ndarray:
        rows, largest = chunk.result()
        where = f"{self._manifest}: layer {self._spec.layer} gives values"
        if not math.isfinite(largest):
            raise ArtifactError(f"{where} that are not finite; the model is broken.")
        if largest > float(np.finfo(self.dtype).max):
            raise ArtifactError(f"{where} up to {largest:.0f}, which exceed float16; set precision: float32.")
        return rows


class FeatureReader:
    """Features of images from a file that was made elsewhere, with the attributes of `FeatureExtractor`.

    Raises:
        ArtifactError: the file is not valid.
        ConfigError: the file has changed since the configuration was read.
    """

    def __init__(self, spec: Features):
        assert spec.file is not None
        self._file = read_vectors(spec.file.checked())
        self.digest = spec.file.digest
        self.dims = self._file.vectors.shape[1]
        self.shape = (self.dims,)
        self.dtype = np.dtype(spec.precision)

    def progress(self, what: str, spans: Sequence[slice]) -> Progress:
        """A progress display for these rows of an index."""
        return Progress(what, 0, len(spans), max((span.stop - span.start for span in spans), default=1))

    def chunks(self, index: Index, spans: Sequence[slice], progress: Progress) -> Iterator[np.ndarray]:
        """The features of each span of an index, (rows, dims).

        Raises:
            ArtifactError: an image has no vector, or a value is too large for the precision.
        """
        rows = self._file.rows_of(index)
        for span in spans:
            values = self._file.vectors[rows[span]]
            if (largest := float(np.abs(values).max())) > float(np.finfo(self.dtype).max):
                raise ArtifactError(
                    f"{self._file.file}: values up to {largest:.0f} exceed float16; set precision: float32."
                )
            yield values.astype(self.dtype)
            progress.step()


class StreamingSource:
    """The features of all images of an index as a source for k-means, computed while they are read, once and in order.

    Attributes:
        shape: (images, dims).
        dtype: of a row.
        rows: rows per chunk, as in a feature store.
        progress: of the extraction.
    """

    def __init__(self, extraction: FeatureExtractor, index: Index):
        self.shape, self.dtype = (len(index), extraction.dims), extraction.dtype
        self.rows = chunk_rows(*self.shape, self.dtype)
        spans = [slice(start, min(len(index), start + self.rows)) for start in range(0, len(index), self.rows)]
        self.progress = extraction.progress("label", spans)
        self._chunks = extraction.chunks(index, spans, self.progress)

    def read(self, span: slice) -> np.ndarray:
        """The next chunks; `span` must be their rows."""
        count = -(-(span.stop - span.start) // self.rows)
        rows = np.concatenate([next(self._chunks) for _ in range(count)])
        assert len(rows) == span.stop - span.start
        self.progress.log(f"image {span.stop}/{self.shape[0]}")
        return rows


class _Chunk:
    """Rows that are copied from the device to the host (pinned memory for CUDA), and their largest absolute value."""

    def __init__(self, n: int, dims: int, precision: str, device: torch.device):
        self._rows = torch.empty(n, dims, dtype=getattr(torch, precision), pin_memory=device.type == "cuda")
        self._largest = torch.zeros((), device=device)
        self._filled = 0
        self._copied = torch.cuda.Event() if device.type == "cuda" else None

    @property
    def full(self) -> bool:
        return self._filled == len(self._rows)

    def add(self, values: Tensor) -> None:
        """Round float32 (B, dims) on the device and copy them, without waiting."""
        room = self._rows[self._filled : self._filled + len(values)]
        room.copy_(values.to(room.dtype), non_blocking=True)
        self._largest = torch.maximum(self._largest, torch.linalg.vector_norm(values, torch.inf))
        self._filled += len(values)

    def close(self) -> None:
        """Record the end of the copies."""
        if self._copied:
            device = self._largest.device
            self._largest = self._largest.to("cpu", non_blocking=True)
            self._copied.record(torch.cuda.current_stream(device))

    def result(self) -> tuple[np.ndarray, float]:
        """Wait for the rows. The largest absolute value is not finite if any value is not."""
        if self._copied:
            self._copied.synchronize()
        return self._rows.numpy(), float(self._largest)
