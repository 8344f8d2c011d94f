import math

import numpy as np
import pytest
import torch

from ssltransfer.data.ab_bins import BINS, STEP, balance, bins, decode, soft_code
from ssltransfer.data.lab import rgb_to_lab

ADDED = {(40, 90), (100, -90), (100, -10), (100, 0)}


def test_bins_are_313_in_order():
    assert len(BINS) == 313 == len(set(BINS)) and list(BINS) == sorted(BINS)
    assert BINS[0] == (-90, 50) and BINS[-1] == (100, 0)
    assert torch.equal(bins(), torch.tensor(BINS, dtype=torch.float32))


def test_bins_cover_srgb_gamut():
    """The bins are the cells of 10x10 that contain one of the 256^3 colors, derived from Lab alone."""
    levels = torch.arange(256)
    green, blue = torch.meshgrid(levels, levels, indexing="ij")
    reached: set[tuple[int, int]] = set()
    for red in range(256):
        image = torch.stack([torch.full_like(green, red), green, blue])[None].to(torch.uint8)
        cells = (rgb_to_lab(image)[0, 1:] / STEP).floor().int().flatten(1)
        flat = ((cells[0] + 20) * 64 + cells[1] + 20).unique()
        reached |= {(int(code) // 64 - 20, int(code) % 64 - 20) for code in flat}
    corners = {(STEP * (a + x), STEP * (b + y)) for a, b in reached for x in (0, 1) for y in (0, 1)}
    assert len(corners) == 309
    assert set(BINS) - corners == ADDED and corners <= set(BINS)


def plain_code(ab: np.ndarray, neighbors: int, sigma: float) -> np.ndarray:
    """One color at a time, in float64, as NNEncLayer says it."""
    square = [(a - ab[0]) ** 2 + (b - ab[1]) ** 2 for a, b in BINS]
    nearest = sorted(range(len(BINS)), key=lambda place: square[place])[:neighbors]
    code = np.zeros(len(BINS))
    for place in nearest:
        code[place] = math.exp(-square[place] / (2 * sigma**2))
    return code / code.sum()


@pytest.mark.parametrize(("neighbors", "sigma"), [(10, 5.0), (5, 8.0), (1, 5.0)])
def test_encode_matches_plain_version(neighbors: int, sigma: float):
    ab = torch.rand(2, 2, 6, 5, generator=torch.Generator().manual_seed(1)) * 160 - 80
    found = soft_code(ab, neighbors=neighbors, sigma=sigma)
    assert found.shape == (2, 313, 6, 5) and ((found > 0).sum(1) <= neighbors).all()
    for row in range(2):
        for y in range(6):
            for x in range(5):
                expected = plain_code(ab[row, :, y, x].double().numpy(), neighbors, sigma)
                assert np.abs(found[row, :, y, x].numpy() - expected).max() < 1e-4


def test_encode_bin_centers_and_far_colors():
    own = soft_code(bins().T.reshape(1, 2, 1, 313))[0, :, 0]
    assert torch.equal(own.argmax(0), torch.arange(313)) and own.diagonal().min() > 0.5
    far = soft_code(torch.tensor([[300.0, 300.0]]).reshape(1, 2, 1, 1))
    assert torch.isfinite(far).all() and float(far.sum()) == pytest.approx(1)


def test_decode_inverts_encode_up_to_bin_size():
    """Colors of a screen, whose neighbors are all bins but at the edge of what it can show."""
    image = torch.randint(0, 256, (4, 3, 30, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    ab = rgb_to_lab(image)[:, 1:]
    shares = soft_code(ab)
    mean = decode(shares.log(), temperature=1.0)
    error = (mean - ab).square().sum(1).sqrt()
    assert error.mean() < 0.5 and error.max() < 5
    likeliest = decode(shares.log(), temperature=1e-3)
    half = STEP / math.sqrt(2)
    assert (likeliest - ab).square().sum(1).sqrt().max() < half + 0.1
    annealed = decode(shares.log())
    assert (annealed - ab).square().sum(1).sqrt().max() < half


def test_rarity_weights_match_zhang():
    prior = torch.tensor([0.7, 0.2, 0.1, 0.0])
    mixed = 0.5 * np.array([0.7, 0.2, 0.1]) + 0.5 / 3
    expected = (1 / mixed) / (np.array([0.7, 0.2, 0.1]) / mixed).sum()
    found = balance(prior)
    assert found[:3].tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert float((prior * found).sum()) == pytest.approx(1) and found.argmax() == 3 and torch.isfinite(found).all()
    assert torch.allclose(balance(7 * prior), found)  # counts do as well as shares


def test_rarity_weights_of_uniform_prior_are_equal():
    assert torch.allclose(balance(torch.ones(313)), torch.ones(313))
    assert torch.allclose(balance(torch.tensor([0.9, 0.1]), uniform=1.0), torch.ones(2))
