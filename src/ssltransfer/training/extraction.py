"""What a layer of a model says of images: batches in, pooled rows out, a chunk at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssltransfer.artifacts.features import chunk_rows
from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.config.entities import Features
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.pooling import pooled, pooled_shape
from ssltransfer.models.weights import GRID, read_model
from ssltransfer.training.devices import Devices
from ssltransfer.training.progress import Progress

BATCH = 128  # images a pass, at most
ACTIVATIONS = 1 << 29  # bytes of a pass's largest layer: VGG16 at 224 pixels takes 41 images, CaffeNet all 128


class FeatureExtractor:
    """A layer of a model, pooled and rounded to a precision, of any images.

    Images are prepared as the model's own evaluation view: short side 256, center crop 227 or 224 (or in
    proportion), the normalization it was trained with (Noroozi et al. 2018, implementation details; protocols 3.1).
    With `patches` the layer is the mean over nine patches, pooled after that (Kolesnikov et al. 2019; protocols 4.5).

    Args:
        spec: layer, pooling and precision.
        manifest: of the model.
        devices: where it is computed.

    Attributes:
        digest: of the model's weights.
        shape: of the layer after pooling, for one image.
        dims: length of a row.
        dtype: of a row.

    Raises:
        ArtifactError: there is no such model.
        LayerError: the model has no such layer, or it cannot be pooled.
    """

    def __init__(self, spec: Features, manifest: Path, devices: Devices):
        self._spec, self._manifest, self._devices = spec, manifest, devices
        self._model = read_model(manifest, devices.device)
        backbone = self._model.backbone
        backbone.require([spec.layer], manifest)
        shapes = backbone.shapes()
        if spec.pool and len(shapes[spec.layer]) != 3:
            raise LayerError(f"{manifest}: {spec.layer} is a vector and cannot be pooled; leave `pool` out.")
        self._cuda = devices.device.type == "cuda"
        if self._cuda:
            backbone.to(memory_format=torch.channels_last)
        # A function of the backbone alone: the size of a pass may show in the last bits.
        passes = GRID**2 if spec.patches else 1
        self._batch = max(1, min(BATCH, ACTIVATIONS // (4 * passes * max(math.prod(one) for one in shapes.values()))))
        self.digest = self._model.digest
        self.shape = pooled_shape(shapes[spec.layer], spec.pool)
        self.dims = math.prod(self.shape)
        self.dtype = np.dtype(spec.precision)

    def progress(self, what: str, spans: Sequence[slice]) -> Progress:
        """The display of a pass over these rows of an index."""
        return Progress(what, 0, sum(-(-(span.stop - span.start) // self._batch) for span in spans), self._batch)

    def chunks(self, index: Index, spans: Sequence[slice], progress: Progress) -> Iterator[np.ndarray]:
        """The rows of each span of an index in turn, (rows, dims).

        Nothing waits for a GPU in between: a chunk is taken from it when the next one has begun.

        Raises:
            ArtifactError: a value is not finite or does not fit the precision, or a image is gone.
        """
        keys = (key for span in spans for key in sequential_keys(range(span.start, span.stop), self._batch))
        workers = self._devices.workers
        view = self._model.patches_view if self._spec.patches else self._model.view
        batches = load_batches(index, view, keys, seed=0, workers=workers, pin=self._cuda)
        # The loader's processes start here: those that a thread of k-means had started would end with an error.
        begun = time.monotonic()
        first = list(islice(batches, 1 if spans else 0))
        progress.waited += time.monotonic() - begun
        return self._computed(chain(first, batches), spans, progress)

    def _computed(self, batches: Iterator[Batch], spans: Sequence[slice], progress: Progress) -> Iterator[np.ndarray]:
        before: _Chunk | None = None
        for span in spans:
            chunk = _Chunk(span.stop - span.start, self.dims, self._spec.precision, self._devices.device)
            while not chunk.full:
                waiting = time.monotonic()
                images = next(batches).images
                waited = time.monotonic() - waiting
                chunk.add(self._values(images))
                progress.step(waited)
                if before:
                    yield self._fitting(before)
                    before = None
            chunk.close()
            before = chunk
        if before:
            yield self._fitting(before)

    @torch.inference_mode()
    def _values(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> float32 (B, dims) on the device."""
        images = images.to(self._devices.device, non_blocking=True)
        if self._cuda:
            images = images.contiguous(memory_format=torch.channels_last)
        layers_of = self._model.layers_of_patches if self._spec.patches else self._model.layers_of
        with self._devices.autocast():
            found = layers_of(images, [self._spec.layer])[self._spec.layer].float()
        return pooled(found, self._spec.pool).flatten(1)

    def _fitting(self, chunk: _Chunk) -> np.ndarray:
        rows, largest = chunk.result()
        where = f"{self._manifest}: layer {self._spec.layer} gives values"
        if not math.isfinite(largest):
            raise ArtifactError(f"{where} that are not finite; the model is broken.")
        if largest > float(np.finfo(self.dtype).max):
            raise ArtifactError(f"{where} up to {largest:.0f}, which float16 cannot hold; set precision: float32.")
        return rows


class StreamingSource:
    """The rows of all images of an index as a source for k-means: computed as they are read, once and in order.

    Args:
        extraction: what computes them.
        index: the images.

    Attributes:
        shape: (images, dims).
        dtype: of a row.
        rows: rows in a chunk, as many as a feature store would have.
        progress: of the pass.
    """

    def __init__(self, extraction: FeatureExtractor, index: Index):
        self.shape, self.dtype = (len(index), extraction.dims), extraction.dtype
        self.rows = chunk_rows(*self.shape, self.dtype)
        spans = [slice(start, min(len(index), start + self.rows)) for start in range(0, len(index), self.rows)]
        self.progress = extraction.progress("label", spans)
        self._chunks = extraction.chunks(index, spans, self.progress)

    def read(self, span: slice) -> np.ndarray:
        """The next chunk, whose rows these must be."""
        rows = next(self._chunks)
        assert len(rows) == span.stop - span.start
        self.progress.log(f"image {span.stop}/{self.shape[0]}")
        return rows


class _Chunk:
    """Rows on their way from the device to the host (pinned memory, for CUDA), and the largest value among them."""

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
        """All are on their way."""
        if self._copied:
            device = self._largest.device
            self._largest = self._largest.to("cpu", non_blocking=True)
            self._copied.record(torch.cuda.current_stream(device))

    def result(self) -> tuple[np.ndarray, float]:
        """Wait for the rows; with the largest absolute value, not finite where any is not."""
        if self._copied:
            self._copied.synchronize()
        return self._rows.numpy(), float(self._largest)
