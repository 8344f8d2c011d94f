"""Random numbers as a function of (seed, epoch, sample id), the same on every device and in every batch.

A stateful generator would have to be restored after a kill, and its numbers would depend on the number of loader
workers and devices. A counter-based one has neither problem: a number depends only on seed, epoch, sample and purpose,
never on earlier calls. The mixer is the finalizer of splitmix64 (Steele, Lea & Flood, OOPSLA 2014), applied to key and
counter in turn. It is integer tensor arithmetic, so CPU and CUDA give the same bits.
"""

from __future__ import annotations

import copy
import hashlib

import torch
from torch import Tensor

from ssltransfer.data.transfer import to_device

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB
HOST_NUMBERS = 1 << 14


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on the text of all `parts`: seed_of(run_seed, "occluders", epoch)."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _shift(x: Tensor, n: int) -> Tensor:
    """Logical right shift of int64: torch's own keeps the sign."""
    return (x >> n) & ((1 << (64 - n)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


class SampleRNG:
    """Random numbers for each sample of a batch.

    Args:
        seed: seed of the entry.
        epoch: int64 (B,), how often each sample has been seen before; an int applies to all.
        ids: int64 (B,), sample ids: positions in the index, not in the batch.
        device: of the numbers. Seeds, epochs and ids are on the CPU.

    Every method takes a `purpose`: equal purposes give equal numbers, different purposes independent numbers.
    """

    def __init__(self, seed: int, epoch: Tensor | int, ids: Tensor, device: torch.device | None = None):
        self.seed, self.device = seed, device or torch.device("cpu")
        key = _mix(ids.to(torch.int64) * _GOLDEN + seed_of(seed))
        self._key = _mix(key ^ (torch.as_tensor(epoch, dtype=torch.int64) * _MIX1 + _GOLDEN))

    def __len__(self) -> int:
        return len(self._key)

    @property
    def host(self) -> SampleRNG:
        """The same numbers on the CPU, for decisions on sizes and rows: reading them from a GPU would wait for it."""
        on_host = copy.copy(self)
        on_host.device = torch.device("cpu")
        return on_host

    def bits(self, purpose: str, n: int) -> Tensor:
        """int64 (B, n), uniform over [0, 2^53)."""
        return to_device(self._bits(purpose, n), self.device)

    def uniform(self, purpose: str, n: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 (B, n), uniform over [low, high)."""
        # 24 bits, the most that float32 represents exactly, so that 1.0 is never reached.
        return to_device(low + (high - low) * ((self._bits(purpose, n) >> 29).float() * 2.0**-24), self.device)

    def integers(self, purpose: str, n: int, count: int) -> Tensor:
        """int64 (B, n), uniform over {0, ..., count-1}."""
        return to_device(self._bits(purpose, n) % count, self.device)

    def normal(self, purpose: str, n: int) -> Tensor:
        """float32 (B, n), standard normal (Box and Muller)."""
        u = self.uniform(purpose, 2 * n)
        radius = torch.sqrt(-2.0 * torch.log1p(-u[:, :n]))
        return radius * torch.cos(2.0 * torch.pi * u[:, n:])

    def permutation(self, purpose: str, n: int) -> Tensor:
        """int64 (B, n), a uniformly random permutation of 0..n-1 for each sample."""
        return to_device(self._bits(purpose, n).argsort(dim=1, stable=True), self.device)

    def _bits(self, purpose: str, n: int) -> Tensor:
        """The bits where they are computed: few on the CPU, where they take one copy instead of 35 kernels."""
        few = len(self) * n <= HOST_NUMBERS
        key = self._key if few else to_device(self._key, self.device)
        counter = torch.arange(1, n + 1, dtype=torch.int64, device=key.device) * _GOLDEN
        return _shift(_mix(_mix(key ^ seed_of(purpose))[:, None] + counter[None]), 11)
