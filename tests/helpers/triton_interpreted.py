"""Compares Triton's kernels with torch: triton_interpreted.py [DEVICE]; on a CPU with TRITON_INTERPRET=1."""

from __future__ import annotations

import sys

import torch

from ssltransfer.kmeans.triton_kernels import add_rows, least, nearest


def main(device: str = "cpu") -> None:
    """Random points of several shapes, in two blocks; empty clusters, one cluster, clusters of more than 64 points."""
    torch.manual_seed(0)
    torch.set_default_device(device)
    for dtype in (torch.float16, torch.float32):
        for n, dims, k in ((150, 70, 37), (200, 513, 1), (300, 5, 3), (4, 1024, 50)):
            sums = torch.zeros(k, dims, dtype=torch.float64)
            expected = sums.clone()
            for _ in range(2):
                x = torch.randn(n, dims).to(dtype)
                labels = torch.randint(0, max(1, k - 1), (n,))  # the last cluster is empty
                order = labels.argsort(stable=True)
                starts = torch.searchsorted(labels[order], torch.arange(k + 1))
                add_rows(x, order, starts, sums)
                expected.index_add_(0, labels, x.double())
            torch.testing.assert_close(sums, expected, rtol=1e-5, atol=1e-4)
            print("sums", dtype, n, dims, k)
    for n, dims, k in ((150, 70, 37), (17, 513, 1), (300, 5, 300), (40, 64, 16)):
        x = torch.randn(n, dims).half()
        centroids = x[torch.randperm(n)[:k]].clone()
        centroids[-1] = centroids[k // 3]  # a tie of two tiles
        squares = centroids.float().square().sum(1)
        labels, scores = nearest(x, centroids, squares)
        exact = centroids.double().square().sum(1) - 2 * x.double() @ centroids.double().T
        torch.testing.assert_close(scores.double(), exact.amin(1), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(exact.gather(1, labels[:, None])[:, 0], exact.amin(1), rtol=1e-4, atol=1e-3)
        assert k == 1 or k - 1 not in labels, "ties go to the lowest cluster"
        print("nearest", n, dims, k)
    for n, k in ((7, 37), (3, 1), (5, 1024), (4, 2500)):
        products = torch.randint(-9, 9, (n, k)).float()  # with ties
        squares = torch.randint(0, 9, (k,)).float()
        labels, scores = least(products, squares)
        every = squares - 2 * products
        expected = every.amin(1)
        assert torch.equal(scores, expected)
        first = (every == expected[:, None]).int().argmax(1)
        assert torch.equal(labels, first), "ties go to the lowest cluster"
        print("least", n, k)


if __name__ == "__main__":
    main(*sys.argv[1:])
