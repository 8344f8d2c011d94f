"""A head's own mix of the units of block3 (Doersch & Zisserman 2017, section 3.2; protocols 1.9)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.models.normalise import normalise
from ssltransfer.models.resnets_v2 import ResNetV2
from ssltransfer.models.trunk import LayerError, Trunk
from ssltransfer.models.weights import Model

MIXED = "block3"


class Mix(nn.Module):
    """sum_m alpha_m Unit_m with |alpha| = 1, then batch norm and ReLU.

    The units' outputs are the raw sums of a residual network of the second form. alpha is v / |v|; v begins at 1 for
    every unit, so that alpha is 1 / sqrt(M). The norm is the mix's own, and begins as that which the trunk has there.

    Args:
        trunk: whose units are mixed.

    Raises:
        LayerError: it is no residual network of the second form.
    """

    def __init__(self, trunk: Trunk):
        super().__init__()
        if not isinstance(trunk, ResNetV2):
            raise LayerError(f"{trunk.options.name} has no units of {MIXED} to mix (lasso); resnet101-v2 has.")
        norm = trunk.get_submodule("norm3")
        assert isinstance(norm, nn.BatchNorm2d)
        self.v = nn.Parameter(torch.ones(len(trunk.units), device=norm.weight.device))
        self.norm = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum).to(norm.weight.device)
        self.norm.load_state_dict(norm.state_dict())

    @property
    def alpha(self) -> Tensor:
        """float (M,), of length 1; entries may be negative."""
        return F.normalize(self.v, dim=0)

    @property
    def penalty(self) -> Tensor:
        """sum |alpha|: 1 for a single unit, sqrt(M) for equal parts of all."""
        return self.alpha.abs().sum()

    @property
    def rounded(self) -> list[float]:
        """alpha, for what is written down."""
        return [round(share, 6) for share in self.alpha.tolist()]

    def forward(self, units: list[Tensor]) -> Tensor:
        """M maps float (B, C, H, W) -> (B, C, H, W)."""
        total = torch.zeros((), device=units[0].device)
        for share, unit in zip(self.alpha, units, strict=True):
            total = total + share * unit
        return F.relu(self.norm(total))


class MixedTrunk(Trunk):
    """A view of a trunk whose block3 is a mix of its units; what follows reads that.

    The trunk's own norm after block3, which nothing reads here, still learns the statistics of the last unit: the trunk
    by itself stays one that can be used.

    Args:
        base: the trunk, whose weights are shared.
    """

    def __init__(self, base: Trunk):
        super().__init__(base.options, top=base.layers == base.options.layers)
        self.mix = Mix(base)
        assert isinstance(base, ResNetV2)
        self.base: ResNetV2 = base

    def step(self, layer: str, x: Tensor) -> Tensor:
        """From the layer before to this one."""
        if layer != MIXED:
            return self.base.step(layer, x)
        units = self.base.units_of(x)
        if self.training:
            with torch.no_grad():
                self.base.get_submodule("norm3")(units[-1])
        mixed: Tensor = self.mix(units)
        return mixed


def units_of(model: Model, pictures: Tensor) -> list[Tensor]:
    """uint8 or float (B, 3, S, S), 0 to 255 -> what each unit of block3 makes of them."""
    trunk = model.trunk
    assert isinstance(trunk, ResNetV2)
    return trunk.units_of(trunk(normalise(pictures, model.rule), ["block2"])["block2"])
