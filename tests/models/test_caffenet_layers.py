"""CaffeNet's pooling and normalization against plain versions of Caffe's own formulas."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.config.backbones import CaffeNet
from ssltransfer.models.build import build_backbone


def pool(x: Tensor) -> Tensor:
    """Caffe's 3/2 maximum pooling: ceil((n - 3) / 2) + 1 windows, the last of them cut off by the border."""
    rows, columns = (math.ceil((n - 3) / 2) + 1 for n in x.shape[-2:])
    out = [[x[..., 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].amax((-2, -1)) for j in range(columns)] for i in range(rows)]
    return torch.stack([torch.stack(row, -1) for row in out], -2)


def lrn(x: Tensor) -> Tensor:
    """x / (1 + 1e-4 / 5 * sum of squares over five channels)^0.75."""
    out = torch.empty_like(x)
    for channel in range(x.shape[1]):
        near = x[:, max(0, channel - 2) : channel + 3].square().sum(1)
        out[:, channel] = x[:, channel] / (1 + 1e-4 / 5 * near) ** 0.75
    return out


def test_layers_are_those_of_a_plain_caffenet():
    backbone = build_backbone(CaffeNet(width_mult=0.25, img_size=95), include_top=True, seed=2).eval()
    weights = dict(backbone.state_dict())
    # Activations of hundreds, where LRN bites, and biases that are not zero.
    for key, value in weights.items():
        if key.endswith("bias"):
            value.uniform_(-1, 1)
    x = 100 * torch.randn(2, 3, 95, 95)

    def conv(name: str, x: Tensor, **kw: int) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **kw).relu()

    expected = {"conv1": conv("conv1", x, stride=4)}
    expected["conv2"] = conv("conv2", lrn(pool(expected["conv1"])), padding=2, groups=2)
    expected["conv3"] = conv("conv3", lrn(pool(expected["conv2"])), padding=1)
    expected["conv4"] = conv("conv4", expected["conv3"], padding=1, groups=2)
    expected["conv5"] = conv("conv5", expected["conv4"], padding=1, groups=2)
    flat = pool(expected["conv5"]).flatten(1)
    expected["fc6"] = F.linear(flat, weights["fc6.weight"], weights["fc6.bias"]).relu()
    expected["fc7"] = F.linear(expected["fc6"], weights["fc7.weight"], weights["fc7.bias"]).relu()

    # The sizes must be ones where rounding up differs from rounding down.
    assert any((side - 3) % 2 for side in (expected["conv1"].shape[-1], expected["conv2"].shape[-1]))
    for name, found in backbone(x, backbone.layers).items():
        assert torch.allclose(found, expected[name], rtol=1e-4, atol=1e-3), name
