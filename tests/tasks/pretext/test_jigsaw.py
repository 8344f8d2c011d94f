import numpy as np
import pytest
import torch

from ssltransfer.config.backbones import CaffeNet, Vgg16
from ssltransfer.config.tasks import Jigsaw, JigsawPP, Tiles
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.tiles import cut_tiles
from ssltransfer.tasks.pretext.jigsaw import JigsawTask
from ssltransfer.tasks.pretext.jigsawpp import JigsawPPTask
from ssltransfer.tasks.pretext.puzzle import ContextFreeNetwork
from ssltransfer.training.task import TrainingError

CUT = Tiles(crop=60, tile=16, jitter=3, channel_shift=1, stem_stride=1)
BACKBONE = CaffeNet(width_mult=0.125, img_size=48)


def jigsawpp(**more: object) -> JigsawPPTask:
    given = {"permutations": 8, "tiles": CUT, "resize": 60, "hidden_dim": 32, "grayscale_prob": 0.0}
    return JigsawPPTask(JigsawPP.model_validate(given | more), BACKBONE, 0)


def jigsaw(**more: object) -> JigsawTask:
    given = {"permutations": 8, "tiles": CUT, "resize": 60, "hidden_dim": 32, "grayscale_prob": 0.0}
    return JigsawTask(Jigsaw.model_validate(given | more), BACKBONE, 0)


def images(n: int, side: int = 60) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator)


def rng(n: int, epoch: int = 0) -> SampleRNG:
    return SampleRNG(0, epoch, torch.arange(n))


def test_context_free_network_has_the_published_sizes():
    """Released train_val_cfn_jps++.prototxt: pool5 256x3x3, fc6 2304 -> 1024, fc7 9216 -> 4096, fc8 4096 -> N."""
    with torch.device("meta"):
        network = ContextFreeNetwork(CaffeNet(), JigsawPP(), seed=0)
    assert network.backbone.shapes(64)["conv1"] == (96, 27, 27)
    linears = [part for part in network.modules() if isinstance(part, torch.nn.Linear)]
    assert [(part.in_features, part.out_features) for part in linears] == [(2304, 1024), (9216, 4096), (4096, 701)]


def test_context_free_network_bn_is_optional():
    """No paper has it, so it is off by default; the backbone never gets any."""
    for bn in (False, True):
        task = jigsawpp(bn=bn)
        norms = [name for name, part in task.network.named_modules() if isinstance(part, torch.nn.BatchNorm1d)]
        assert norms == (["fc6.1", "fc7.1"] if bn else [])
        assert not any("fc" in name for name in task.backbone.state_dict())
    assert not JigsawPP().bn and not Jigsaw().bn


def test_context_free_network_of_vgg16_has_its_sizes():
    with torch.device("meta"):
        network = ContextFreeNetwork(Vgg16(), JigsawPP(), seed=0)
    assert network.fc6[0].in_features == 2048 and network.pool5.features == 512 * 2 * 2


def test_jigsaw_defaults_match_the_papers():
    one, two = Jigsaw(), JigsawPP()
    assert (two.permutations, two.min_distance, two.occluders, two.grayscale_prob) == (701, 3, (0, 1, 2), 0.7)
    assert (one.grayscale_prob, one.hidden_dim, one.dropout, one.resize) == (0.3, 4096, 0.5, 256)
    for cut, jitter in ((one.tiles, None), (two.tiles, 18)):
        assert (cut.crop, cut.tile, cut.jitter, cut.channel_shift) == (255, 64, jitter, 2)


@pytest.mark.parametrize("task", [jigsaw(), jigsawpp()], ids=["jigsaw", "jigsaw++"])
def test_jigsaw_tiles_follow_uniform_permutations(task: JigsawTask | JigsawPPTask):
    n = 4000
    blank = torch.zeros(1, 3, 60, 60, dtype=torch.uint8).expand(n, 3, 60, 60)
    labels = torch.cat([task.puzzles(blank[:400], draws_at(start))[1] for start in range(0, n, 400)])
    counts = torch.bincount(labels, minlength=8)
    assert ((counts - n / 8).square() / (n / 8)).sum() < 30  # chi-square, 7 degrees: p < 1e-4

    # Cell (i, j) holds the gray value 9 + 20 * its number, so that tiles differ after standardization.
    cells = torch.arange(9).view(3, 3).repeat_interleave(20, 0).repeat_interleave(20, 1) * 20
    ramp = (cells + torch.arange(60) % 20).to(torch.uint8).expand(4, 3, 60, 60)
    expected = cut_tiles(ramp, rng(4), task.options.tiles)
    found, label = with_options(task, occluders=(0,)).puzzles(ramp, rng(4))
    assert isinstance(task.permutations, torch.Tensor)
    for puzzle, tiles, one in zip(found, expected, label, strict=True):
        for slot, source in enumerate(task.permutations[one].tolist()):
            tile = tiles[source].double().numpy()
            axes = (1, 2) if isinstance(task, JigsawTask) else (0, 1, 2)
            plain = (tile - tile.mean(axes, keepdims=True)) / tile.std(axes, keepdims=True)
            assert np.allclose(puzzle[slot], plain, atol=1e-4)


def draws_at(start: int) -> SampleRNG:
    return SampleRNG(0, 0, torch.arange(start, start + 400))


def with_options(task: JigsawTask | JigsawPPTask, **more: object) -> JigsawTask | JigsawPPTask:
    return jigsawpp(**more) if isinstance(task, JigsawPPTask) else task


def test_jigsawpp_occluders_come_from_the_partner():
    """Two kinds of image, told apart by red against blue: what is foreign in a puzzle is of the other kind."""
    n = 600
    noise = images(n)
    kind = torch.arange(n) % 2
    noise[kind == 0, 2] = 0  # no blue
    noise[kind == 1, 0] = 0  # no red
    puzzles, _ = jigsawpp().puzzles(noise, rng(n))
    flat = puzzles.std((-1, -2)) < 1e-6  # (n, 9, 3): the channel that is constant says whose tile it is
    assert (flat.sum(-1) == 1).all()
    kinds = torch.where(flat[..., 2], 0, 1)
    foreign = (kinds != kind[:, None]).sum(1)
    assert set(foreign.tolist()) == {0, 1, 2}
    counts = torch.bincount(foreign)
    assert ((counts - n / 3).square() / (n / 3)).sum() < 20  # equally likely
    places = (kinds != kind[:, None]).sum(0)
    assert places.min() > 0.7 * places.float().mean()  # in any slot


def test_jigsawpp_puzzle_depends_on_its_pair_alone():
    task = jigsawpp(grayscale_prob=0.5, color_projection_prob=0.3)
    source = images(8)
    together, labels = task.puzzles(source, rng(8))
    for start in range(0, 8, 2):
        pair, label = task.puzzles(source[start : start + 2], SampleRNG(0, 0, torch.arange(start, start + 2)))
        assert torch.equal(pair, together[start : start + 2]) and torch.equal(label, labels[start : start + 2])


def test_jigsawpp_refuses_odd_batches():
    with pytest.raises(TrainingError, match="make batch_size and micro_batch_size even"):
        jigsawpp().puzzles(images(3), rng(3))
    assert jigsawpp().puzzles(images(1), rng(1))[0].shape == (1, 9, 3, 16, 16)


@pytest.mark.parametrize(("share", "task"), [(0.7, jigsawpp(grayscale_prob=0.7)), (0.3, jigsaw(grayscale_prob=0.3))])
def test_jigsaw_gray_is_drawn_once_per_puzzle(share: float, task: JigsawTask | JigsawPPTask):
    n = 800
    puzzles, _ = task.puzzles(images(n), rng(n))
    gray = (puzzles[:, :, 0] - puzzles[:, :, 1]).abs().amax((-1, -2)) < 1e-5  # (n, 9)
    assert torch.equal(gray.any(1), gray.all(1))
    assert abs(gray.all(1).float().mean() - share) < 0.06


def test_jigsawpp_color_projection_removes_green_magenta():
    puzzles, _ = jigsawpp(color_projection_prob=1.0, occluders=(0,)).puzzles(images(8), rng(8))
    along = -puzzles[:, :, 0] + 2 * puzzles[:, :, 1] - puzzles[:, :, 2]
    assert (along - along.mean((-1, -2), keepdim=True)).abs().max() < 1e-4


def test_jigsaw_puzzles_differ_by_epoch():
    task = jigsawpp()
    source = images(4)
    one, two = (task.puzzles(source, rng(4, epoch))[0] for epoch in (0, 1))
    assert not any(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_jigsaw_permutation_set_ignores_the_seed():
    options = JigsawPP(permutations=8, tiles=CUT, resize=60, hidden_dim=32)
    one, two = (JigsawPPTask(options, BACKBONE, seed).permutations for seed in (0, 1))
    assert isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor) and torch.equal(one, two)
