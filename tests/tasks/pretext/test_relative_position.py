from random import Random

import pytest
import torch
from pydantic import ValidationError

from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.tasks import RelativePosition
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.tiles import OFFSETS, patch_pairs
from ssltransfer.tasks.pretext.relative_position import Canvas, RelativePositionTask, label_shares

SMALL = {
    "patch": 20,
    "gap": 8,
    "jitter": 3,
    "area_range": (4096, 5184),
    "crop_size": 60,
    "stem_stride": 1,
    "hidden_dim": 32,
}
BACKBONE = CaffeNet(width_mult=0.125, img_size=48)


def task(**more: object) -> RelativePositionTask:
    return RelativePositionTask(RelativePosition.model_validate(SMALL | more), BACKBONE, 0)


def images(n: int, side: int = 60) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def rng(n: int) -> SampleRNG:
    return SampleRNG(0, 0, torch.arange(n))


def test_relative_position_defaults_match_the_released_code():
    options = RelativePosition()
    assert (options.patch, options.gap, options.jitter, options.area_range) == (96, 48, 7, (150_000, 450_000))
    assert (options.grids_per_image, options.pairs_per_image, options.downsample_prob, options.hidden_dim) == (
        4,
        None,
        0.33,
        4096,
    )


def test_relative_position_head_has_the_published_widths():
    with torch.device("meta"):
        network = RelativePositionTask(RelativePosition(), CaffeNet(), 0)
    widths = [(p.in_features, p.out_features) for p in network.modules() if isinstance(p, torch.nn.Linear)]
    assert widths == [(256 * 2 * 2, 4096), (8192, 4096), (4096, 4096), (4096, 8)]
    norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm1d)]
    assert len(norms) == 2 and not any(part.affine for part in norms)


@pytest.mark.parametrize(("height", "width"), [(120, 120), (300, 400), (50, 40)])
def test_canvas_areas_and_positions_are_uniform(height: int, width: int):
    """A ramp of rows and columns tells the scale and the place of the cut."""
    canvas = Canvas((10_000, 30_000), 80)
    rows = torch.linspace(0, 255, height).view(1, height, 1).expand(1, height, width)
    columns = torch.linspace(0, 255, width).view(1, 1, width).expand(1, height, width)
    image = torch.cat([rows, columns, rows]).to(torch.uint8)
    areas, tops = [], []
    for seed in range(300):
        cut = canvas.apply(image, Random(seed)).float()
        assert cut.shape == (3, 80, 80)
        span = (cut[0, -1].mean() - cut[0, 0].mean()) / 255  # the share of the height that the cut shows
        resized = 79 / float(span)
        areas.append(resized**2 * width / height)
        tops.append(float(cut[0, 0].mean()) / 255 * resized / max(resized - 80, 1e-6))
    areas_sorted = torch.tensor(areas).sort().values
    uniform = torch.linspace(10_000, 30_000, 300)
    assert (areas_sorted - uniform).abs().max() < 3000
    middle = torch.tensor(tops)
    assert 0.35 < middle.median() < 0.65


def test_canvas_enlarges_long_images():
    cut = Canvas((10_000, 10_000), 100).apply(images(1, 40)[0, :, :10], Random(0))
    assert cut.shape == (3, 100, 100)


def test_canvas_min_short_side_covers_the_largest_area():
    assert RelativePosition().area_range[1] <= Canvas((150_000, 450_000), 320).min_short_side ** 2


def test_relative_position_embeds_each_patch_once():
    network = task()
    sizes: list[int] = []
    network.backbone.get_submodule("conv1").register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    source, order = images(6), rng(6)
    pairs = patch_pairs(source, order, network.options)
    from ssltransfer.data.loader import Batch

    network(Batch(source, torch.arange(6), torch.zeros(6, dtype=torch.int64)), order)
    assert sizes == [len(pairs.patches)] and len(pairs.label) > len(pairs.patches)


def test_relative_position_inputs_have_unit_scale():
    for color in ("drop", "project"):
        network = task(color_mode=color)
        pairs = patch_pairs(images(8), rng(8), network.options)
        inputs = network.prepare(pairs)
        assert torch.allclose(inputs.square().mean((1, 2, 3)).sqrt(), torch.ones(len(inputs)), atol=1e-4)


def test_relative_position_color_modes_remove_color():
    network = task(color_mode="drop", downsample_prob=0.0)
    pairs = patch_pairs(images(40), rng(40), network.options)
    loud = network.prepare(pairs).std((-1, -2))  # (N, 3)
    assert ((loud > 1).sum(1) == 1).all() and ((loud < 0.02).sum(1) == 2).all()
    assert set(loud.argmax(1).tolist()) == {0, 1, 2}

    network = task(color_mode="project", downsample_prob=0.0)
    red, green, blue = network.prepare(patch_pairs(images(8), rng(8), network.options)).unbind(1)
    assert (2 * green - red - blue).abs().max() < 1e-4


def test_relative_position_downsamples_a_third():
    source = images(60)  # white noise: blur halves its deviation
    sharp, some = task(color_mode="project", downsample_prob=0.0), task(color_mode="project")
    pairs = patch_pairs(source, rng(60), some.options)
    same = (sharp.prepare(pairs) - some.prepare(pairs)).abs().amax((1, 2, 3)) < 1e-5
    assert abs((~same).float().mean() - 0.33) < 0.06


@pytest.mark.parametrize("more", [{}, {"patch": 12, "gap": 6, "jitter": 2}], ids=["2x2", "up to 4x4"])
def test_label_shares_match_sampled_labels(more: dict[str, int]):
    options = RelativePosition.model_validate(SMALL | more)
    pairs = patch_pairs(images(400), rng(400), options)
    found = torch.bincount(pairs.label, minlength=8) / len(pairs.label)
    assert torch.allclose(found, torch.tensor(label_shares(options)), atol=0.01)
    assert len(OFFSETS) == 8


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"crop_size": 40}, "more than crop_size 40"),
        ({"jitter": 5}, "so patches may touch"),
        ({"area_range": (3000, 5000)}, "from 3600 or more"),
        ({"area_range": (5000, 4000)}, "must be ascending"),
        ({"grids_per_image": 1, "pairs_per_image": 13}, "more than 12, the fewest pairs of 1 grids"),
    ],
)
def test_relative_position_options_refuse_errors(more: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        RelativePosition.model_validate(SMALL | more)


def test_label_shares_match_worked_example():
    """Two patches fit side by side in 320 pixels: of 12 pairs, 8 are straight neighbors and 4 are diagonal ones."""
    shares = [1 / 12, 1 / 6, 1 / 12, 1 / 6, 1 / 6, 1 / 12, 1 / 6, 1 / 12]
    assert label_shares(RelativePosition()) == pytest.approx(shares)
