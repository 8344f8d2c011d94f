"""The fast form of up-projections against the plain one: zeros between the values, then 5x5."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.models.up_projection import UnpooledConvolution, UpProjection


def plain(x: Tensor, weight: Tensor) -> Tensor:
    """Doubled with zeros, each value in the upper left, then a 5x5 convolution."""
    unpooled = x.new_zeros(*x.shape[:-2], 2 * x.shape[-2], 2 * x.shape[-1])
    unpooled[..., ::2, ::2] = x
    return F.conv2d(unpooled, weight, padding=2)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4), (3, 5), (4, 7)])
def test_unpooled_convolution_matches_the_plain_form(height: int, width: int) -> None:
    torch.manual_seed(height)
    layer = UnpooledConvolution(3, 4).double()
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    found, wanted = layer(x), plain(x, layer.weight)
    assert torch.allclose(found, wanted, atol=1e-12)
    # The same again as a transposed convolution.
    turned = layer.weight.flip(2, 3).transpose(0, 1)
    assert torch.allclose(found, F.conv_transpose2d(x, turned, stride=2, padding=2, output_padding=1), atol=1e-12)
    upstream = torch.randn_like(found)
    ours = torch.autograd.grad(found, (x, layer.weight), upstream)
    theirs = torch.autograd.grad(wanted, (x, layer.weight), upstream)
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("training", [False, True])
def test_up_projection_matches_laina(training: bool) -> None:
    torch.manual_seed(0)
    block = UpProjection(6, 4).train(training)
    for value in block.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            value.uniform_(0.5, 1.5)
    x = torch.randn(3, 6, 5, 4)
    found = block(x)
    one, norm1, _, three, norm2 = block.branch
    other, norm3 = block.shortcut
    for norm in (norm1, norm2, norm3):
        assert isinstance(norm, nn.BatchNorm2d)
        norm.momentum = 0.0  # the statistics of the first pass do not change the second
    first, shortcut = (plain(x, unpooled.get_parameter("weight")) for unpooled in (one, other))
    wanted = norm2(three(F.relu(norm1(first)))) + norm3(shortcut)
    assert found.shape == (3, 4, 10, 8) and torch.allclose(found, F.relu(wanted), atol=1e-5)
