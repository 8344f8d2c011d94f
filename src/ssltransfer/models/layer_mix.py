"""A learned mix of the units of block3 for each head (Doersch & Zisserman 2017, section 3.2; protocols 1.9)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.models.backbone import Backbone, LayerError
from ssltransfer.models.normalize import normalize
from ssltransfer.models.resnets_v2 import ResNetV2
from ssltransfer.models.weights import PretrainedModel

MIXED = "block3"


class LayerMix(nn.Module):
    """sum_m alpha_m Unit_m with |alpha| = 1, then batch norm and ReLU.

    The units' outputs are the sums of a pre-activation network, without norm. alpha is v / |v|; v starts at 1 for every
    unit, so that alpha is 1 / sqrt(M). The batch norm starts as a copy of the backbone's norm3.

    Raises:
        LayerError: the backbone has no such units.
    """

    def __init__(self, backbone: Backbone):
        super().__init__()
        if not isinstance(backbone, ResNetV2):
            raise LayerError(f"{backbone.options.name} has no units of {MIXED} to mix (lasso); resnet101-v2 has.")
        norm = backbone.get_submodule("norm3")
        assert isinstance(norm, nn.BatchNorm2d)
        self.v = nn.Parameter(torch.ones(len(backbone.units), device=norm.weight.device))
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
        """alpha, for reports."""
        return [round(weight, 6) for weight in self.alpha.tolist()]

    def forward(self, units: list[Tensor]) -> Tensor:
        """M maps float (B, C, H, W) -> (B, C, H, W)."""
        total = torch.zeros((), device=units[0].device)
        for weight, unit in zip(self.alpha, units, strict=True):
            total = total + weight * unit
        return F.relu(self.norm(total))


class MixedBackbone(Backbone):
    """A view of a backbone, with the same weights, whose block3 is a mix of its units. Later layers read the mix.

    The backbone's own norm after block3 is not used here. It still tracks the statistics of the last unit, so that the
    backbone remains usable without the mix.
    """

    def __init__(self, base: Backbone):
        super().__init__(base.options, include_top=base.include_top)
        self.mix = LayerMix(base)
        assert isinstance(base, ResNetV2)
        self.base: ResNetV2 = base

    def forward_layer(self, layer: str, x: Tensor) -> Tensor:
        """See `Backbone`."""
        if layer != MIXED:
            return self.base.forward_layer(layer, x)
        units = self.base.units_of(x)
        if self.training:
            with torch.no_grad():
                self.base.get_submodule("norm3")(units[-1])
        mixed: Tensor = self.mix(units)
        return mixed


def units_of(model: PretrainedModel, images: Tensor) -> list[Tensor]:
    """Outputs of the units of block3 for images uint8 or float (B, 3, S, S), 0 to 255."""
    backbone = model.backbone
    assert isinstance(backbone, ResNetV2)
    return backbone.units_of(backbone(normalize(images, model.normalization), ["block2"])["block2"])
