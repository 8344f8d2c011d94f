import numpy as np
import pytest
import torch
from pydantic import ValidationError
from skimage import color
from torch import nn

from ssltransfer.config.backbones import CaffeNet, ResNet101V2
from ssltransfer.config.tasks import RelativePositionResidual
from ssltransfer.data.lab import rgb_to_lab
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.tiles import OFFSETS, PatchPairs, patch_pairs
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.normalize import normalize
from ssltransfer.tasks.pretext.relative_position_residual import RelativePositionResidualTask

SMALL = {"patch": 28, "gap": 8, "jitter": 3, "area_range": (5184, 6400), "crop_size": 72, "hidden_dim": 16}
SMALL |= {"head": {"head_dims": (16, 8), "bottleneck_dim": 8}}
BACKBONE = CaffeNet(width_mult=0.125, img_size=48, stem_stride=2)


def task(**more: object) -> RelativePositionResidualTask:
    return RelativePositionResidualTask(RelativePositionResidual.model_validate(SMALL | more), BACKBONE, 0)


def images(n: int, side: int = 72) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize(("width", "expected"), [(None, 9216), (4608, 4608)])
def test_residual_head_has_the_published_sizes(width: int | None, expected: int):
    """Patches of 96 give 12x12x1024 at stride 8, then 6x6x1024 and 3x3x512; three units of the pair's width."""
    with torch.device("meta"):
        network = RelativePositionResidualTask(RelativePositionResidual(width=width), ResNet101V2(), 0)
        shape = network.backbone.shapes(96)[network.vectors.layer]
        one = network.vectors.units[0](torch.empty(1, *shape))
        two = network.vectors.units(torch.empty(1, *shape))
    assert network.vectors.layer == "block3" and shape == (1024, 12, 12)
    assert one.shape == (1, 1024, 6, 6) and two.shape == (1, 512, 3, 3) and network.vectors.features == 4608
    middle = [m for m in network.vectors.units.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert [(m.in_channels, m.out_channels, m.stride) for m in middle] == [(128, 128, (2, 2))] * 2
    linear = [(m.in_features, m.out_features) for m in network.head.modules() if isinstance(m, nn.Linear)]
    unit = [(expected, 512), (512, 512), (512, expected)]
    assert linear == [*([(9216, 4608)] if width else []), *unit, *unit, *unit, (expected, 8)]


def test_residual_defaults_match_the_papers():
    options = RelativePositionResidual()
    assert (options.patch, options.gap, options.jitter, options.lightness_input) == (96, 48, 7, False)
    assert (options.head.head_dims, options.head.bottleneck_dim, options.hidden_dim, options.width) == (
        (1024, 512),
        128,
        512,
        None,
    )


def test_residual_label_is_the_neighbor():
    network = task(downsample_prob=0.0)
    source = images(20)
    pairs = patch_pairs(source, SampleRNG(0, 0, torch.arange(20)), network.options)
    pitch = network.options.patch + network.options.gap
    for one, two, label in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.label.tolist(), strict=True):
        image, top, left = pairs.corners[one].tolist()
        other, lower, further = pairs.corners[two].tolist()
        dx, dy = OFFSETS[label]
        assert image == other
        slack = 2 * network.options.jitter
        assert abs(further - left - dx * pitch) <= slack and abs(lower - top - dy * pitch) <= slack
        assert torch.equal(source[image, :, top : top + 28, left : left + 28], pairs.patches[one])


def test_residual_inputs_keep_one_color():
    network = task(downsample_prob=0.0)
    inputs = network.prepare(patch_pairs(images(40), SampleRNG(0, 0, torch.arange(40)), network.options))
    loud = inputs.std((-1, -2))
    assert ((loud > 1).sum(1) == 1).all() and ((loud < 0.02).sum(1) == 2).all()
    assert torch.allclose(inputs.square().mean((1, 2, 3)), torch.ones(len(inputs)), atol=1e-3)


def pairs_of(patches: torch.Tensor) -> PatchPairs:
    none = torch.zeros(0, dtype=torch.int64)
    return PatchPairs(patches, none, SampleRNG(0, 0, torch.arange(len(patches))), none, none, none)


def test_residual_lightness_input_has_no_hue():
    """Colors of equal lightness, whatever their hue, are the same input: no shift of a channel can be seen."""
    network = task(lightness_input=True, downsample_prob=0.5)
    random = np.random.default_rng(0)
    lightness, angle = random.uniform(45, 75, (6, 28, 28)), random.uniform(0, 7, (6, 28, 28))
    inputs = []
    for turn in (0.0, 2.0, 4.0):
        lab = np.stack([lightness, 20 * np.cos(angle + turn), 20 * np.sin(angle + turn)], axis=-1)
        inputs.append(torch.from_numpy(color.lab2rgb(lab) * 255).permute(0, 3, 1, 2).float())
    assert (inputs[0] - inputs[1]).abs().max() > 30  # other colors
    sharp = task(lightness_input=True, downsample_prob=0.0)
    seen = [sharp.prepare(pairs_of(x)) for x in inputs]
    assert (seen[0] - seen[1]).abs().max() < 1e-3 and (seen[0] - seen[2]).abs().max() < 1e-3
    some = network.prepare(patch_pairs(images(8), SampleRNG(0, 0, torch.arange(8)), network.options))
    assert torch.equal(some[:, 0], some[:, 1]) and torch.equal(some[:, 0], some[:, 2])
    whole = images(2)
    assert network.normalization == "lab-lightness"
    assert torch.equal(sharp.prepare(pairs_of(whole)), normalize(whole, network.normalization))
    assert torch.allclose(normalize(whole, network.normalization)[:, 0], rgb_to_lab(whole)[:, 0] / 50 - 1, atol=1e-6)


def test_residual_embeds_each_patch_once():
    network = task()
    sizes: list[int] = []
    network.backbone.get_submodule("conv1").register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    source, order = images(6), SampleRNG(0, 0, torch.arange(6))
    pairs = patch_pairs(source, order, network.options)
    network(Batch(source, torch.arange(6), torch.zeros(6, dtype=torch.int64)), order)
    assert sizes == [len(pairs.patches)] and len(pairs.label) > len(pairs.patches)


def test_residual_options_refuse_errors():
    with pytest.raises(LayerError, match="Patches of 12 pixels are too small"):
        task(patch=12, gap=6)
    with pytest.raises(ValidationError, match="more than crop_size 60"):
        task(crop_size=60, area_range=(3600, 3600))
    with pytest.raises(ValidationError, match="head_dims"):
        RelativePositionResidual.model_validate({"head": {"head_dims": (0, 4)}})
