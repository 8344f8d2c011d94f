"""Sheets of thumbnails have a limited size."""

from __future__ import annotations

import numpy as np

from ssltransfer.report.thumbnails import sheets


def test_sheets_of_noise_keep_the_limit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
    size = sum(map(len, sheets([noise[:20], noise[20:]], 6, 1 << 30)))
    assert sum(map(len, sheets([noise[:20], noise[20:]], 6, size // 2))) <= size // 2
