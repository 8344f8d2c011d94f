"""The points of a clustering: blocks of rows on the device, kept in memory where they fit, read again where not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ssltransfer.artefacts.files import ArtefactError

BLOCK_FLOATS = {"cpu": 4 << 20, "cuda": 64 << 20}  # 16 MB and 256 MB of float32


class Source(Protocol):
    """A matrix of rows in chunks; a feature store is one, `Matrix` another.

    Attributes:
        shape: (points, dimensions).
        rows: rows in a chunk.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    rows: int

    def read(self, span: slice) -> np.ndarray:
        """Rows, (rows, dimensions)."""
        ...


class Matrix:
    """An array in memory as a source of one chunk."""

    def __init__(self, values: np.ndarray):
        self._values = values
        self.shape: tuple[int, int] = (values.shape[0], values.shape[1])
        self.dtype = values.dtype
        self.rows = max(1, len(values))

    def read(self, span: slice) -> np.ndarray:
        """Rows of the array."""
        return self._values[span]


class Points:
    """Rows of a source, float32 on the device, in blocks whose size depends on the shapes and the kind of device only.

    So results do not depend on how much memory there was.

    Args:
        source: where the rows are read.
        k: clusters that they will be compared with.
        normalise: divide each row by its length (a row of zeros stays).
        device: where blocks are wanted.
        budget: bytes of host memory; the points are kept where they fit into what the work itself leaves of it.
        where: what the rows are called in messages.
        extra: bytes that the caller needs besides.
        keep: whether the rows are read more than once.

    Raises:
        ArtefactError: the work itself does not fit.
    """

    def __init__(
        self,
        source: Source,
        k: int,
        *,
        normalise: bool,
        device: torch.device,
        budget: int,
        where: str,
        extra: int = 0,
        keep: bool = True,
    ):
        self.source, self.normalise, self.device, self.where = source, normalise, device, where
        self.shape = source.shape
        n, dims = source.shape
        self.step = max(1, BLOCK_FLOATS[device.type] // max(k, dims))
        size = n * dims * source.dtype.itemsize
        chunk = min(n, source.rows) * dims * source.dtype.itemsize
        # A chunk is read and copied once; a block lives as raw, centred and compared; centroids as float32 three
        # times and as float64 sums; labels and distances of each point.
        on_host = device.type == "cpu"
        work = 2 * chunk + 16 * n + extra + (4 * 4 * self.step * max(k, dims) + 32 * k * dims if on_host else 0)
        if work > budget:
            raise ArtefactError(
                f"{where}: {k} clusters in {dims} dimensions need {work >> 20} MB of memory and the budget is "
                f"{budget >> 20} MB; give the job more, raise SSLTRANSFER_MEMORY_MB, or use fewer clusters."
            )
        self.home: torch.device | None = None
        if keep and not on_host and size < 0.6 * torch.cuda.mem_get_info(device)[0]:
            self.home = device
        elif keep and size + work <= budget:
            self.home = torch.device("cpu")
        # As float32 where that fits too: the conversion of float16 is a tenth of an iteration on a CPU.
        self._float32 = on_host and n * dims * 4 + work <= budget
        self._kept: dict[int, Tensor] = {}
        self._finite: set[int] = set()
        self._block = torch.empty(self.step, dims, device=device)

    def __str__(self) -> str:
        where = f"kept on {self.home}" if self.home else "read from the disk in each iteration"
        n, dims = self.shape
        return f"{n} points of {dims} dimensions, {n * dims * self.source.dtype.itemsize / 1e6:.0f} MB {where}"

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """All points in order: rows and float32 (rows, dimensions) on the device, overwritten by the next block.

        Raises:
            ArtefactError: a value is not finite.
        """
        for start in range(0, self.shape[0], self.source.rows):
            chunk = self._chunk(start)
            for first in range(0, len(chunk), self.step):
                part = chunk[first : first + self.step]
                span = slice(start + first, start + first + len(part))
                yield span, self._prepared(part, range(span.start, span.stop), self._block[: len(part)])
            self._finite.add(start)

    def pick(self, ids: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Some points, a block at a time.

        Args:
            ids: int64, in any order.

        Yields:
            Positions in `ids`, and float32 (rows, dimensions).
        """
        order = np.argsort(ids, kind="stable")
        for starts in np.split(order, np.flatnonzero(np.diff(ids[order] // self.source.rows)) + 1):
            start = int(ids[starts[0]]) // self.source.rows * self.source.rows
            chunk = self._chunk(start)
            for first in range(0, len(starts), self.step):
                part = starts[first : first + self.step]
                rows = torch.from_numpy(ids[part] - start).to(chunk.device)
                yield part, self._prepared(chunk[rows], ids[part])

    def take(self, ids: np.ndarray) -> Tensor:
        """float32 (len(ids), dimensions), in the order of `ids`."""
        taken = torch.empty(len(ids), self.shape[1], device=self.device)
        for part, rows in self.pick(ids):
            taken[torch.from_numpy(part).to(self.device)] = rows
        return taken

    def digests(self, ids: np.ndarray) -> list[bytes]:
        """A digest of each point; equal points have equal ones."""
        found = [b""] * len(ids)
        for part, rows in self.pick(ids):
            for position, row in zip(part.tolist(), (rows + 0.0).cpu().numpy(), strict=True):  # -0 becomes 0
                found[position] = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
        return found

    def _chunk(self, start: int) -> Tensor:
        if start in self._kept:
            return self._kept[start]
        raw = self.source.read(slice(start, min(self.shape[0], start + self.source.rows)))
        chunk = torch.from_numpy(np.require(raw, requirements=["C", "W"]))
        if self.home is not None:
            dtype = torch.float32 if self._float32 else chunk.dtype
            self._kept[start] = chunk = chunk.to(self.home, dtype)
        return chunk

    def _prepared(self, part: Tensor, ids: range | np.ndarray, room: Tensor | None = None) -> Tensor:
        here = part.device == self.device and part.dtype == torch.float32
        x = part if here else part.to(self.device, torch.float32) if room is None else room.copy_(part)
        known = ids[0] // self.source.rows * self.source.rows in self._finite
        if known and not self.normalise:
            return x
        lengths = torch.linalg.vector_norm(x, dim=1)
        bad = ~lengths.isfinite()
        if bad.any():
            sample = ids[int(bad.nonzero()[0])]
            raise ArtefactError(
                f"{self.where}: sample {sample} has a feature that is not a finite number; the model or the store is "
                "broken: extract these features again."
            )
        return torch.div(x, lengths.where(lengths > 0, 1.0)[:, None], out=room) if self.normalise else x
