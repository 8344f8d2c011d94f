"""Loader: batches of uint8 images of an index, the same for any number of workers and after any restart."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from random import Random
from threading import Thread
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssltransfer.artifacts.index import Index
from ssltransfer.data.image_cache import read_sample
from ssltransfer.data.parallel import original_errors, report_undelivered
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.data.transforms import Transform

LARGE = 128 * 128  # pixels


@dataclass(frozen=True)
class Batch:
    """Images with their ids and targets.

    Attributes:
        images: uint8 (B, 3, S, S), or (B, V, 3, S, S) of `Views`, or (B, 3, H, W), padded to the largest image, of
            transforms with `padding`.
        ids: int64 (B,), positions in the index; always on the CPU.
        epochs: int64 (B,), how often each image has been seen before; always on the CPU.
        targets: (B, ...) each. `label`, int64 (B,), if the index has class labels. `multi_label`, int8 (B, C), if the
            index has several labels per image: 1 present, 0 difficult, -1 absent. All others are what the transform
            returned.
        sizes: int64 (B, 2), height and width of each image before padding; always on the CPU.
    """

    images: Tensor
    ids: Tensor
    epochs: Tensor
    targets: dict[str, Tensor] = field(default_factory=dict)
    sizes: Tensor = field(default_factory=lambda: torch.empty(0, 2, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device, copies: torch.cuda.Stream | None = None) -> Batch:
        """The batch with images and targets on a device; the copy of pinned memory is asynchronous.

        copies: stream on which a GPU copies while it still works on the batches before; default the current stream.
        """
        with torch.cuda.stream(copies) if copies is not None else nullcontext():
            images = self.images.to(device, non_blocking=True)
            targets = {name: part.to(device, non_blocking=True) for name, part in self.targets.items()}
        if copies is not None:
            now = torch.cuda.current_stream(device)
            now.wait_stream(copies)
            for part in (images, *targets.values()):
                part.record_stream(now)  # its memory is free for later batches when the work on it is done
        return replace(self, images=images, targets=targets)

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; torch's loader calls this in its own thread."""
        return self._map(Tensor.pin_memory)

    def split(self, size: int | None) -> list[Batch]:
        """Micro-batches of at most `size` images."""
        if size is None or size >= len(self):
            return [self]
        return [self._map(itemgetter(slice(start, start + size))) for start in range(0, len(self), size)]

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        targets = {name: change(part) for name, part in self.targets.items()}
        return Batch(change(self.images), change(self.ids), change(self.epochs), targets, change(self.sizes))

    def rng(self, seed: int) -> SampleRNG:
        """Random numbers of each image."""
        return SampleRNG(seed, self.epochs, self.ids, self.images.device)


def training_keys(n: int, batch: int, start: int, stop: int, seed: int) -> Iterator[list[tuple[int, int]]]:
    """(sample, epoch) of each image of the global steps start..stop-1.

    All n images in a new random order per epoch. Image j of step s is element s * batch + j of that endless sequence,
    so that a training can resume at any step.
    """
    epoch, order = -1, torch.empty(0)
    for step in range(start, stop):
        keys: list[tuple[int, int]] = []
        while len(keys) < batch:
            position = step * batch + len(keys)
            if position // n != epoch:
                epoch = position // n
                order = torch.randperm(n, generator=torch.Generator().manual_seed(seed_of(seed, "order", epoch)))
            first = position % n
            keys += [(sample, epoch) for sample in order[first : first + batch - len(keys)].tolist()]
        yield keys


def sequential_keys(ids: range | list[int], batch: int) -> Iterator[list[tuple[int, int]]]:
    """Samples in the given order, all of epoch 0; the last batch may be smaller."""
    ids = list(ids)
    for start in range(0, len(ids), batch):
        yield [(sample, 0) for sample in ids[start : start + batch]]


def load_batches(
    index: Index,
    transform: Transform,
    keys: Iterator[list[tuple[int, int]]],
    *,
    seed: int,
    workers: int = 0,
    pin: bool = False,
) -> Iterator[Batch]:
    """Read, decode and transform the images of each list of keys.

    Args:
        index: of the images.
        transform: its random numbers are seeded by (seed, epoch, sample).
        keys: lists of (sample, epoch).
        seed: of the entry that is trained or evaluated.
        workers: loader processes; 0 reads in this one, large images in as many threads as torch has. A transform must
            therefore be safe in threads.
        pin: page-locked memory, for copies to a CUDA device.

    Raises:
        ArtifactError: an image of the index, its cached copy or its target cannot be read.
        WorkerError: a worker cannot send its batches.
    """
    if index.cache is not None:
        index.cache.check()
    elif index.members is not None:
        index.members.check()
    samples = _Samples(index, transform, seed)
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=partial(_collate, padding=transform.padding),
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
    )
    with original_errors(), ExitStack() as stack:
        if not workers and torch.get_num_threads() > 1 and _decoding_is_slow(index):
            samples.threads = stack.enter_context(ThreadPoolExecutor(torch.get_num_threads()))
        yield from loader


def _decoding_is_slow(index: Index) -> bool:
    """Whether most time of loading is in decoders, which release the interpreter's lock.

    Two threads take twice as long as none for images of 64 pixels, 0.7 times as long for 256 and 0.56 for 384.
    """
    raw = index.cache is not None and index.cache.options.format == "raw"
    return not raw and bool(len(index)) and float(np.median(index.sizes.prod(1, dtype=np.int64))) >= LARGE


def _start_worker(worker: int) -> None:
    report_undelivered()
    # Slurm and terminals signal every process of a job. A worker killed by the signal would end the main process before
    # it has written its checkpoint. Only the main process itself may terminate a worker.
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):
        return  # macOS does not tell who sent a signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    Thread(target=wait, daemon=True).start()


_Item = tuple[int, int, dict[str, Tensor]]


class _Samples(Dataset[_Item]):
    def __init__(self, index: Index, transform: Transform, seed: int):
        self.index, self.transform, self.seed = index, transform, seed
        self.labels = torch.from_numpy(index.labels.astype("int64")) if index.has_labels else None
        self.multi_label = None if index.multi_label is None else torch.from_numpy(index.multi_label)
        self.threads: ThreadPoolExecutor | None = None

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[_Item]:
        """The images of a batch; torch's loader calls this."""
        if self.threads is None:
            return [self[key] for key in keys]
        return list(self.threads.map(self.__getitem__, keys))

    def __getitem__(self, key: tuple[int, int]) -> _Item:
        sample, epoch = key
        image = read_sample(self.index, sample, min_short_side=self.transform.min_short_side)
        tensors = self.transform(self.index, sample, image, Random(seed_of(self.seed, epoch, sample)))
        if self.labels is not None:
            tensors["label"] = self.labels[sample]
        if self.multi_label is not None:
            tensors["multi_label"] = self.multi_label[sample]
        return sample, epoch, tensors


def _collate(items: list[_Item], padding: Mapping[str, float] | None) -> Batch:
    ids, epochs, samples = zip(*items, strict=True)
    sizes = torch.tensor([one["image"].shape[-2:] for one in samples])
    if padding is None:
        tensors = {name: torch.stack([one[name] for one in samples]) for name in samples[0]}
    else:
        tensors = {name: _padded([one[name] for one in samples], padding.get(name, 0.0)) for name in samples[0]}
    return Batch(tensors.pop("image"), torch.tensor(ids), torch.tensor(epochs), tensors, sizes)


def _padded(parts: list[Tensor], value: float) -> Tensor:
    """(B, ...), each tensor padded at its ends to the largest."""
    largest = [max(sides) for sides in zip(*(part.shape for part in parts), strict=True)]
    # F.pad expects (before, after) from the last dimension to the first.
    gaps = ([gap for a, b in zip(part.shape, largest, strict=True) for gap in (b - a, 0)][::-1] for part in parts)
    return torch.stack([F.pad(part, gap, value=value) for part, gap in zip(parts, gaps, strict=True)])
