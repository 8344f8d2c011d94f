import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ssltransfer.config.protocols import Pool
from ssltransfer.models.pooling import pooled, pooled_shape


@given(st.integers(1, 64), st.integers(1, 40), st.integers(16, 9000))
def test_max_dim_uses_the_smallest_stride(channels: int, side: int, limit: int) -> None:
    shape = pooled_shape((channels, side, side), Pool(max_dim=limit))
    stride = max(1, math.ceil(math.sqrt(channels * side * side / limit)))
    assert shape[1] == shape[2] == max(1, side // stride)
    assert math.prod(shape) <= limit or shape[1:] == (1, 1)
    assert pooled(torch.zeros(2, channels, side, side), Pool(max_dim=limit)).shape[1:] == shape


def test_max_dim_matches_kolesnikov() -> None:
    """ResNet50 at 224 pixels: block1 to block4, at most 9000 numbers."""
    maps = [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]
    assert [pooled_shape(shape, Pool(max_dim=9000)) for shape in maps] == [
        (256, 5, 5),
        (512, 4, 4),
        (1024, 2, 2),
        (2048, 1, 1),
    ]


@pytest.mark.parametrize(("pool", "plain"), [("max", torch.amax), ("avg", torch.mean)])
def test_max_and_avg_pool_over_blocks(pool: str, plain) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32))
    blocks = plain(x.reshape(2, 3, 4, 2, 4, 2), (3, 5))
    assert torch.allclose(pooled(x, Pool(**{pool: 4})), blocks, atol=1e-6)
    if pool == "max":
        assert torch.equal(pooled(x, Pool(max_dim=3 * 16)), blocks)
        assert torch.equal(pooled(x, Pool(max_dim=3 * 15)), F.max_pool2d(x, 3))


def test_pooled_keeps_vectors_and_whole_maps() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    assert pooled(x, None) is x and pooled_shape((3,), Pool(max=2)) == (3,)
    assert pooled_shape((3, 5, 5), None) == (3, 5, 5)


def test_pool_needs_exactly_one_option() -> None:
    for wrong in ({}, {"max": 2, "avg": 2}, {"avg": 1, "max_dim": 9}):
        with pytest.raises(ValueError, match="give one of max, avg and max_dim"):
            Pool(**wrong)
    assert [Pool(max=4).slug, Pool(avg=1).slug, Pool(max_dim=9000).slug] == ["max4", "avg1", "max_dim9000"]
