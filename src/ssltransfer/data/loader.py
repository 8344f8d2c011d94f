"""From an index to batches of uint8 images, the same at any number of loader workers and after any restart."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.data.image_cache import read_sample
from ssltransfer.data.rng import SampleRNG, seed_of
from ssltransfer.data.transforms import JointTransform, Transform


@dataclass(frozen=True)
class Batch:
    """Images on their way through a step.

    Attributes:
        images: uint8 (B, 3, S, S); (B, V, 3, S, S) of `Views`; (B, 3, H, W) of a `JointTransform`, padded to the
            largest of the batch.
        ids: int64 (B,), positions in the index.
        epochs: int64 (B,), how often each image has been seen before.
        targets: what a `JointTransform` gives beside, (B, ...) each, and `sizes`, int64 (B, 2): height and width of
            each image before it was filled up.
    """

    images: Tensor
    ids: Tensor
    epochs: Tensor
    targets: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> Batch:
        """The batch on a device, copied while the device works where memory is pinned."""
        images, ids, epochs = (part.to(device, non_blocking=True) for part in (self.images, self.ids, self.epochs))
        targets = {name: part.to(device, non_blocking=True) for name, part in self.targets.items()}
        return Batch(images, ids, epochs, targets)

    def split(self, size: int | None) -> list[Batch]:
        """Micro-batches of at most `size`."""
        if size is None or size >= len(self):
            return [self]
        spans = [slice(start, start + size) for start in range(0, len(self), size)]
        return [
            Batch(
                self.images[span],
                self.ids[span],
                self.epochs[span],
                {name: part[span] for name, part in self.targets.items()},
            )
            for span in spans
        ]

    def rng(self, seed: int) -> SampleRNG:
        """Random numbers of each image."""
        return SampleRNG(seed, self.epochs, self.ids)


def training_keys(n: int, batch: int, start: int, stop: int, seed: int) -> Iterator[list[tuple[int, int]]]:
    """(sample, epoch) of each image of global steps start..stop-1.

    All images in a fresh order, again and again: image j of step s stands at place s*batch + j of that endless
    row, so any step can be the first.
    """
    epoch, order = -1, torch.empty(0)
    for step in range(start, stop):
        keys = []
        for place in range(step * batch, (step + 1) * batch):
            if place // n != epoch:
                epoch = place // n
                order = torch.randperm(n, generator=torch.Generator().manual_seed(seed_of(seed, "order", epoch)))
            keys.append((int(order[place % n]), epoch))
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
    """Read, decode, resize and crop the images of each list of keys.

    Args:
        index: where the images lie.
        transform: uint8 (3, H, W), Random -> uint8 (3, S, S) or (V, 3, S, S), or one of image and target;
            the Random is seeded by (seed, epoch, sample).
        keys: lists of (sample, epoch).
        seed: of the named thing that is made.
        workers: loader processes; 0 reads in this one.
        pin: page-locked memory, for copies to a CUDA device.

    Raises:
        ArtifactError: a image that the index holds, or its cached copy, cannot be read any more.
    """
    if index.cache is not None:
        index.cache.check()
    loader: DataLoader[object] = DataLoader(
        _Images(index, transform, seed),
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=partial(_collate, padding=transform.padding if isinstance(transform, JointTransform) else None),
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_ignore_signals,
    )
    for batch in loader:
        if isinstance(batch, str):
            raise ArtifactError(batch)
        assert isinstance(batch, Batch)
        yield batch


def _ignore_signals(worker: int) -> None:
    # Slurm and a terminal send their signal to every process of a job. A worker that dies of it would take the
    # checkpoint along that the main process is about to write; workers end when the main process does.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


_Item = tuple[int, int, dict[str, Tensor]]


class _Images(Dataset[object]):
    def __init__(self, index: Index, transform: Transform, seed: int):
        self.index, self.transform, self.seed = index, transform, seed
        self.min_short_side: int | None = getattr(transform, "min_short_side", None)

    def __getitem__(self, key: tuple[int, int]) -> _Item | str:
        sample, epoch = key
        random = Random(seed_of(self.seed, epoch, sample))
        try:
            image = read_sample(self.index, sample, min_short_side=self.min_short_side)
            if isinstance(self.transform, JointTransform):
                return sample, epoch, self.transform.pair(self.index, sample, image, random)
        except ArtifactError as error:
            # An exception would arrive from a worker wrapped in a traceback; one sentence is wanted.
            return str(error)
        return sample, epoch, {"image": self.transform(image, random)}


def _collate(items: list[_Item | str], padding: Mapping[str, float] | None) -> Batch | str:
    ids, epochs, found = [], [], []
    for item in items:
        if isinstance(item, str):
            return item
        ids.append(item[0])
        epochs.append(item[1])
        found.append(item[2])
    tensors = {name: _stacked([one[name] for one in found], (padding or {}).get(name, 0.0)) for name in found[0]}
    images = tensors.pop("image")
    if padding is not None:
        tensors["sizes"] = torch.tensor([one["image"].shape[-2:] for one in found])
    return Batch(images, torch.tensor(ids), torch.tensor(epochs), tensors)


def _stacked(parts: list[Tensor], filling: float) -> Tensor:
    """(B, ...), each filled up at its ends to the largest."""
    largest = [max(sides) for sides in zip(*(part.shape for part in parts), strict=True)]
    if any(list(part.shape) != largest for part in parts):
        # F.pad wants (before, after) from the last dimension to the first.
        gaps = [[gap for a, b in zip(part.shape, largest, strict=True) for gap in (b - a, 0)][::-1] for part in parts]
        parts = [F.pad(part, gap, value=filling) for part, gap in zip(parts, gaps, strict=True)]
    return torch.stack(parts)
