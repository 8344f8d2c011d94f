"""Iterations of Lloyd's algorithm on points in memory, on a GPU of the first paper's size, against a plain loop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.harness.measure import OURS, Comparison, Figure, Setting, interleave
from benchmarks.harness.upper_bounds import product
from ssltransfer.kmeans import PointLoader
from ssltransfer.kmeans.update import TorchStep

DEVICES = ("cpu", "cuda")
GOAL, SECONDS = 0.6, 15.0
LOOP, PRODUCTS = "plain torch loop", "bare products"
ITERATIONS = 5
BLOCK = 8192


class Drawn:
    """Rectified float16 features around drawn centers, made on the device, chunk by chunk, alike in each reading."""

    dtype = np.dtype(np.float16)
    rows = 16384

    def __init__(self, n: int, dims: int, device: str):
        self.shape, self._device = (n, dims), device
        self._centers = torch.rand(512, dims, generator=torch.Generator(device).manual_seed(0), device=device)

    def read(self, span: slice) -> np.ndarray:
        """Rows, float16."""
        draw = torch.Generator(self._device).manual_seed(1 + span.start)
        rows = span.stop - span.start
        near = torch.randint(len(self._centers), (rows,), generator=draw, device=self._device)
        noise = torch.randn(rows, self.shape[1], generator=draw, device=self._device)
        drawn: np.ndarray = (self._centers[near] + noise).relu_().half().cpu().numpy()
        return drawn


def run(setting: Setting) -> Iterator[Comparison | Figure]:
    """Loading the points is not timed; the loop has its own copy of them, not centered (on a GPU float16, as ours)."""
    device = torch.device(setting.device)
    n, dims, k = setting.size(16_384, 600), setting.size(9600, 64), setting.size(500, 20)
    if device.type == "cuda":  # two copies and the blocks must fit
        n, k = min(1_280_000, int(0.4 * torch.cuda.mem_get_info()[0] / (2 * dims))), 2000
    source = Drawn(n, dims, setting.device)
    half = torch.float16 if device.type == "cuda" else torch.float32
    x = torch.cat([torch.from_numpy(source.read(slice(s, min(n, s + source.rows)))) for s in range(0, n, source.rows)])
    x = x.to(device, half)
    points = PointLoader(source, k, normalize=False, device=device, budget=8 * n * dims + (4 << 30), where="drawn")
    start = x[:k].float()
    step = TorchStep(points, k, "keep")

    def ours() -> torch.Tensor:
        centroids = start
        for _ in range(ITERATIONS):
            centroids = step(centroids).centroids
        return centroids

    @torch.inference_mode()
    def loop() -> torch.Tensor:
        centroids = start
        for _ in range(ITERATIONS):
            sums, counts = torch.zeros_like(start), torch.zeros(k, device=device)
            operand, squares = centroids.to(half), centroids.square().sum(1)
            for block in x.split(BLOCK):
                labels = (squares - 2 * (block @ operand.T).float()).argmin(1)
                sums.index_add_(0, labels, block.float())
                counts += torch.bincount(labels, minlength=k)
            centroids = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centroids)
        return centroids

    bare = product(n, dims, k, setting.device, BLOCK, half)

    def products() -> None:
        for _ in range(ITERATIONS):
            bare()

    samples = interleave({OURS: ours, LOOP: loop, PRODUCTS: products}, setting.rounds)
    case = f"{ITERATIONS} iterations, {n} x {dims} drawn on the device, k = {k}"
    paces = {"products": (OURS, 2.0 * ITERATIONS * n * dims * k)}
    yield Comparison(case, 1, "", samples, {LOOP: None, PRODUCTS: GOAL}, paces=paces)
    if device.type == "cuda":
        hundred = [100 / ITERATIONS * seconds for seconds in samples[OURS]]
        yield Figure(f"100 iterations, {case.split(', ', 1)[1]}", "s", hundred, SECONDS, {})
