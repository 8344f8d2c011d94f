from __future__ import annotations

import pytest
import torch
from torch import nn

from ssltransfer.models.local_response_norm import LocalResponseNorm


@pytest.mark.parametrize("channels", [3, 12, 96])
def test_local_response_norm_equals_torch(channels: int) -> None:
    """Values and gradients, where the sum of squares dominates and where it does not."""
    x = (torch.randn(2, channels, 7, 5).relu() * torch.tensor([1.0, 300.0])[:, None, None, None]).requires_grad_()
    exact = x.detach().double().requires_grad_()
    ours, theirs = LocalResponseNorm(channels)(x), nn.LocalResponseNorm(5, 1e-4, 0.75)(exact)
    torch.testing.assert_close(ours.double(), theirs, rtol=2e-6, atol=1e-6)
    ours.sin().sum().backward()
    theirs.sin().sum().backward()
    assert x.grad is not None and exact.grad is not None
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)


def test_local_response_norm_computes_in_float32() -> None:
    x = torch.randn(1, 8, 4, 4).bfloat16() * 100
    norm = LocalResponseNorm(8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = norm(x)
    assert out.dtype == torch.bfloat16 and torch.equal(out, norm(x.float()).bfloat16())
    assert not norm.state_dict()
