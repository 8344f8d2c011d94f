"""Sources of points, and a loader of blocks on the device that keeps points in memory if they fit."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.training.memory_budget import memory_budget

BLOCK_FLOATS = {"cpu": 4 << 20, "cuda": 128 << 20}  # 16 MB and 512 MB of float32
BLOCK_ROWS = {"cpu": 2048, "cuda": 1 << 20}  # more rows multiply no faster, and leave the cache
AHEAD = 2  # blocks that are copied to a GPU before it has finished the current one


class PointSource(Protocol):
    """A matrix that is read in chunks of rows, such as a feature store."""

    shape: tuple[int, int]  # points, dimensions
    dtype: np.dtype
    rows: int  # per chunk

    def read(self, span: slice) -> np.ndarray:
        """Rows of one or several whole chunks, (rows, dimensions)."""
        ...


class ArraySource:
    """An array in memory as a source of as many chunks as there are processes."""

    def __init__(self, values: np.ndarray, world: int = 1):
        self._values = values
        self.shape: tuple[int, int] = (values.shape[0], values.shape[1])
        self.dtype = values.dtype
        self.rows = max(1, -(-len(values) // world))

    def read(self, span: slice) -> np.ndarray:
        """Rows of the array."""
        return self._values[span]


class SubsetSource:
    """Some rows of a source, with ascending int64 `ids`, as a source."""

    def __init__(self, source: PointSource, ids: np.ndarray):
        self._source, self._ids = source, ids
        self.shape = (len(ids), source.shape[1])
        self.dtype = source.dtype
        self.rows = max(1, min(len(ids), source.rows))

    def read(self, span: slice) -> np.ndarray:
        """Rows, (rows, dimensions); each chunk that holds one of them is read once."""
        ids = self._ids[span]
        rows = np.empty((len(ids), self.shape[1]), self.dtype)
        size = self._source.rows
        cuts = [0, *(np.flatnonzero(np.diff(ids // size)) + 1).tolist(), len(ids)]
        for inside in (slice(*pair) for pair in pairwise(cuts) if pair[0] < pair[1]):
            start = int(ids[inside.start]) // size * size
            chunk = self._source.read(slice(start, min(self._source.shape[0], start + size)))
            rows[inside] = chunk[ids[inside] - start]
        return rows


def _free_memory(device: torch.device) -> int:
    """Bytes on a GPU, with those that torch holds without need."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


class PointLoader:
    """Rows of a source in blocks on the device, float32 unless `center` changes that.

    The size of a block depends only on the shapes and the kind of device, so results do not depend on the memory. Each
    rank iterates over its own chunks (every world-th one); `take` and `digests` return the rows of all ranks.

    Args:
        source: of the rows.
        k: number of clusters that they are compared with.
        normalize: divide each row by its length; rows of zeros stay.
        device: of the blocks.
        where: name of the rows in messages.
        budget: bytes of host memory, default `memory_budget()`. The rows are kept in memory if they fit beside the
            working memory.
        extra: bytes of additional working memory.
        keep: the rows are read more than once.
        rank, world: this process and the number of processes.

    Raises:
        ArtifactError: the working memory exceeds the budget.
    """

    def __init__(
        self,
        source: PointSource,
        k: int,
        *,
        normalize: bool,
        device: torch.device,
        where: str,
        budget: int | None = None,
        extra: int = 0,
        keep: bool = True,
        rank: int = 0,
        world: int = 1,
    ):
        self.source, self.normalize, self.device, self.where = source, normalize, device, where
        self.rank, self.world = rank, world
        self.shape = n, dims = source.shape
        # On a GPU each block reads and writes all sums, so a block is as large as possible.
        width = max(k, dims) if device.type == "cpu" else dims
        self.step = max(1, min(BLOCK_ROWS[device.type], BLOCK_FLOATS[device.type] // width))
        # On a GPU a block may need several chunks of the source: those of a store have 24 MB.
        chunks = 1 if device.type == "cpu" else max(1, self.step // source.rows)
        self._rows = chunks * source.rows  # of a read, which is called a chunk below
        self._starts = range(rank * self._rows, n, world * self._rows)  # first rows of this rank's chunks
        sizes = [min(self._rows, n - start) * dims * source.dtype.itemsize for start in self._starts]
        size = sum(sizes)
        chunk = min(n, self._rows) * dims * source.dtype.itemsize
        # Three chunks (read ahead, processed, copied), four blocks (raw, centered, scores, ...), centroids five times
        # as float32 and twice as float64 sums, and labels and distances of each point.
        on_host = device.type == "cpu"
        work = 3 * chunk + 24 * n + extra + (4 * 4 * self.step * max(k, dims) + 40 * k * dims if on_host else 0)
        self.budget = budget = memory_budget() if budget is None else budget
        if work > budget:
            raise ArtifactError(
                f"{where}: {k} clusters in {dims} dimensions need {work >> 20} MB of memory, but the budget is "
                f"{budget >> 20} MB; give the job more, raise SSLTRANSFER_MEMORY_MB, or use fewer clusters"
                f"{' or init: random' if extra else ''}."
            )
        self.resident_on: torch.device | None = None
        self._numbers, self._room = size // source.dtype.itemsize, budget - work
        # Chunks in host memory are page-locked for a GPU, which torch does in powers of two.
        host_size = size if on_host else sum(1 << (one - 1).bit_length() for one in sizes)
        if keep and not on_host and size <= (free := int(0.6 * _free_memory(device))):
            self.resident_on, self._room = device, free
        elif keep and host_size <= self._room:
            self.resident_on = torch.device("cpu")
        # Chunks kept on a GPU become halves. With the points themselves in host memory the last pass reads no store.
        self._keeps_raw = self.resident_on == device and not on_host and size <= budget - work
        self._raw: dict[int, Tensor] = {}
        self._copies = None if on_host else torch.cuda.Stream(device)
        self._finished: deque[torch.cuda.Event] = deque()
        self._kept: dict[int, Tensor] = {}
        self._ready: set[int] = set()  # the kept chunks that are centered and converted already
        self._finite: set[int] = set()
        self.center(torch.zeros((), device=device))

    def __str__(self) -> str:
        where = f"kept on {self.resident_on}" if self.resident_on else "read from disk in each iteration"
        n, dims = self.shape
        shared = f", divided among {self.world}" if self.world > 1 else ""
        return f"{n} points of {dims} dimensions, {n * dims * self.source.dtype.itemsize / 1e6:.0f} MB {where}{shared}"

    def center(self, offset: Tensor, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> None:
        """Make all later blocks (row - offset) x scale, as `dtype`.

        Args:
            offset: float32 (D,).
            dtype: float16 needs half the memory and half the time for products on a GPU.
            scale: 0.5 for float16, because differences of float16 numbers may exceed its range.
        """
        self._kept = {start: chunk for start, chunk in self._kept.items() if start not in self._ready}
        self._ready.clear()
        self._offset, self.dtype, self._scale = offset, dtype, scale
        # Conversion is a tenth of an iteration on a CPU, so its result is kept if it fits too.
        self._makes_ready = self.resident_on == self.device and self._numbers * dtype.itemsize <= self._room
        self._block = torch.empty(self.step, self.shape[1], device=self.device)

    def release(self) -> None:
        """Free the centered rows and undo `center`, before a last pass."""
        self.resident_on = None
        self.center(torch.zeros((), device=self.device))

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks, in place if on_device are several."""
        if self.world > 1:
            on_device = values.to(self.device)
            dist.all_reduce(on_device)
            values.copy_(on_device)
        return values

    def gather(self, items: list[Any]) -> list[Any]:
        """The items of all ranks, in the order of ranks."""
        if self.world == 1:
            return items
        lists: list[list[Any]] = [[] for _ in range(self.world)]
        dist.all_gather_object(lists, items)
        return [item for part in lists for item in part]

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """This rank's blocks in order: their rows as a slice, and (rows, dimensions) on the device.

        A block is read-only and valid until the next one.

        Raises:
            ArtifactError: a value is not finite.
        """
        with ThreadPoolExecutor(1) as reader:
            # A thread reads the next chunk ahead: a pair holds the reads of this chunk and the next.
            reads = pairwise(chain((reader.submit(self._chunk, start) for start in self._starts), [None]))
            for start, (read, _) in zip(self._starts, reads, strict=True):
                assert read is not None
                chunk = read.result()
                raw = start not in self._ready
                if self.resident_on and (start not in self._kept or (raw and self._makes_ready)):
                    chunk = self._kept[start] = self._keepable(start, chunk)
                yield from self._blocks(start, chunk)
                self._finite.add(start)

    def _keepable(self, start: int, chunk: Tensor) -> Tensor:
        if self._makes_ready:
            ready = torch.empty(chunk.shape, dtype=self.dtype, device=self.device)
            for span, rows in self._blocks(start, chunk):
                ready[span.start - start : span.stop - start] = rows
            self._ready.add(start)
            return ready
        if self.device.type == "cpu":
            return chunk
        return chunk.to(self.device) if self.resident_on == self.device else chunk.pin_memory()

    def _blocks(self, start: int, chunk: Tensor) -> Iterator[tuple[slice, Tensor]]:
        for first in range(0, len(chunk), self.step):
            part = chunk[first : first + self.step]
            span = slice(start + first, start + first + len(part))
            yield span, self._prepared(part, range(span.start, span.stop))

    def pick(self, ids: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """This rank's part of some points, int64 in any order, in blocks: positions in `ids`, (rows, dimensions)."""
        order, size = np.argsort(ids, kind="stable"), self._rows
        for positions in np.split(order, np.flatnonzero(np.diff(ids[order] // size)) + 1):
            if not len(positions) or (start := int(ids[positions[0]]) // size * size) not in self._starts:
                continue
            chunk = self._chunk(start)
            for part in np.split(positions, range(self.step, len(positions), self.step)):
                rows = chunk[torch.from_numpy(ids[part] - start).to(chunk.device)]
                yield part, self._prepared(rows, ids[part])

    def take(self, ids: np.ndarray) -> Tensor:
        """float32 (len(ids), dimensions), in the order of `ids`."""
        taken = torch.zeros(len(ids), self.shape[1], device=self.device)
        for part, rows in self.pick(ids):
            taken[torch.from_numpy(part).to(self.device)] = rows.float()
        return self.total(taken)

    def digests(self, ids: np.ndarray) -> list[bytes]:
        """A digest of each point's values."""
        found = []
        for part, rows in self.pick(ids):
            for position, row in zip(part.tolist(), (rows + 0.0).cpu().numpy(), strict=True):  # -0 becomes 0
                found.append((position, hashlib.blake2b(row.tobytes(), digest_size=16).digest()))
        return [digest for _, digest in sorted(self.gather(found))]

    def _chunk(self, start: int) -> Tensor:
        for kept in (self._kept, self._raw):
            if start in kept:
                return kept[start]
        rows = self.source.read(slice(start, min(self.shape[0], start + self._rows)))
        chunk = torch.from_numpy(np.require(rows, requirements=["C", "W"]))
        if self._keeps_raw:
            self._raw[start] = chunk
        return chunk

    def _on_device(self, part: Tensor) -> Tensor:
        """Rows on the device. A GPU copies them while it works on the blocks before."""
        if self._copies is None or part.device == self.device:
            return part
        now = torch.cuda.current_stream(self.device)
        event = torch.cuda.Event()
        event.record(now)
        self._finished.append(event)
        if len(self._finished) > AHEAD:
            self._finished.popleft().synchronize()
        with torch.cuda.stream(self._copies):
            part = part.to(self.device, non_blocking=True)
        now.wait_stream(self._copies)
        part.record_stream(now)  # its memory is free for later copies when the work on it is done
        return part

    def _prepared(self, part: Tensor, ids: range | np.ndarray) -> Tensor:
        """Some rows of one chunk, checked, normalized and centered."""
        start = ids[0] // self._rows * self._rows
        if start in self._ready:
            return part
        part = self._on_device(part)
        unchanged = part.dtype == torch.float32 and not self.normalize
        unchanged = unchanged and not self._offset.ndim and self.dtype == torch.float32
        x = part if unchanged else self._block[: len(part)].copy_(part)
        if self.normalize or start not in self._finite:
            lengths = torch.linalg.vector_norm(x, dim=1)
            bad = ~lengths.isfinite()
            if bad.any():
                sample = ids[int(bad.nonzero()[0])]
                raise ArtifactError(
                    f"{self.where}: sample {sample} has a feature that is not a finite number; the model or the store "
                    "is broken; extract these features again."
                )
            if self.normalize:
                x.div_(lengths.where(lengths > 0, 1.0)[:, None])
        if self._offset.ndim:
            x.sub_(self._offset)
        return x if self.dtype == torch.float32 else x.mul_(self._scale).to(self.dtype)
