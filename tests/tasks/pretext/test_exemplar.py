"""Exemplar: views that differ, gray that is gray, and a loss that agrees with the plainest way to write it."""

from __future__ import annotations

import itertools
from random import Random

import pytest
import torch
from torch import Tensor

from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.tasks import Exemplar
from ssltransfer.data.drawing import visible
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import RandomResizedCrop, Views
from ssltransfer.tasks.pretext.exemplar import ExemplarTask, semi_hard_loss, squared_distances
from ssltransfer.training.task import TrainingError

BACKBONE = CaffeNet(width_mult=0.125, img_size=48, stem_stride=2)


def task(**given: object) -> ExemplarTask:
    return ExemplarTask(Exemplar.model_validate({"num_views": 4, "embed_dim": 16, **given}), BACKBONE, 0)


def views(n: int, count: int = 4) -> Tensor:
    shape = (n, count, 3, 48, 48)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def rng(n: int) -> SampleRNG:
    return SampleRNG(1, 0, torch.arange(n))


def plain_loss(x: Tensor, image: list[int], margin: float) -> float:
    """One anchor, one positive, one negative at a time."""
    n, total, pairs = len(image), 0.0, 0
    distance = [[float(((x[i] - x[j]) ** 2).sum()) for j in range(n)] for i in range(n)]
    for a, p in itertools.permutations(range(n), 2):
        if image[a] != image[p]:
            continue
        others = [distance[a][k] for k in range(n) if image[k] != image[a]]
        farther = [d for d in others if d > distance[a][p]]
        negative = min(farther) if farther else max(others)
        total += max(0.0, distance[a][p] + margin - negative)
        pairs += 1
    return total / pairs


@pytest.mark.parametrize("spread", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_semi_hard_loss_matches_double_loop(spread: float, seed: int):
    """Images far apart, mixed up, and all over each other: nearest farther negatives, and the farthest of none."""
    generator = torch.Generator().manual_seed(seed)
    image = [0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 3]
    centers = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    x = centers[image] + spread * torch.randn(11, 6, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    number = torch.tensor(image)
    same = number[:, None] == number
    loss = semi_hard_loss(squared_distances(x), same, 0.5)
    assert float(loss.detach()) == pytest.approx(plain_loss(x.detach(), image, 0.5), abs=1e-9)
    loss.backward()
    # and so is its gradient, by differences
    for row, column in [(0, 0), (4, 3), (9, 5)]:
        step = torch.zeros_like(x)
        step[row, column] = 1e-6
        up, down = (plain_loss((x + sign * step).detach(), image, 0.5) for sign in (1, -1))
        assert x.grad is not None and float(x.grad[row, column]) == pytest.approx((up - down) / 2e-6, abs=1e-5)


def test_semi_hard_loss_uses_both_kinds_of_negatives():
    """One anchor-positive pair with a farther negative, one without: worked out by hand."""
    x = torch.tensor([[0.0], [1.0], [1.1]])
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    # anchor 0: positive at 1, negative at 1.21 is farther; anchor 1: positive at 1, the negative only at .01
    expected = (max(0.0, 1 + 0.5 - 1.21) + (1 + 0.5 - 0.01)) / 2
    assert float(semi_hard_loss(squared_distances(x), same, 0.5)) == pytest.approx(expected, abs=1e-6)


def test_semi_hard_loss_of_equal_embeddings_is_the_margin():
    same = torch.eye(5).repeat_interleave(3, 0).repeat_interleave(3, 1).bool()
    assert float(semi_hard_loss(squared_distances(torch.ones(15, 4)), same, 0.5)) == pytest.approx(0.5)
    assert task().chance_loss == 0.5


def test_squared_distances_ignore_autocast():
    x = torch.nn.functional.normalize(torch.randn(64, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = squared_distances(x)
    assert found.dtype == torch.float32
    assert torch.allclose(found, (x[:, None] - x).square().sum(2), atol=1e-5)


def test_exemplar_views_are_different_crops():
    """An image whose pixels say where they lie: every view is a box of it, no two the same."""
    down, across = torch.meshgrid(torch.arange(200), torch.arange(160), indexing="ij")
    image = torch.stack([down, across, torch.zeros_like(down)]).to(torch.uint8)
    made = task(num_views=8).transform
    assert made == Views(RandomResizedCrop(48, scale=(0.05, 1.0)), 8) and made.min_short_side == round(48 / 0.05**0.5)
    seen = made.apply(image, Random(3))
    assert seen.shape == (8, 3, 48, 48) and seen.dtype == torch.uint8
    boxes = {(*map(int, one[:2, 0, 0]), *map(int, one[:2, -1, -1])) for one in seen}
    assert len(boxes) == 8
    for top, left, bottom, right in boxes:
        # in pixels of the source, a view spans at least 5 % of 200 x 160, and aspects of 3/4 to 4/3
        area = (bottom - top) * (right - left)
        assert 0.03 < area / (200 * 160) <= 1.01
        assert 0.68 < (right - left) / (bottom - top) < 1.45
    assert torch.equal(seen, made.apply(image, Random(3))) and not torch.equal(seen, made.apply(image, Random(4)))


def test_exemplar_batch_has_all_views(objects: Index):
    network = task(min_scale=0.2)
    batch = next(load_batches(objects, network.transform, sequential_keys(range(6), 6), seed=0))
    assert batch.images.shape == (6, 4, 3, 48, 48)
    inputs, image = network.inputs(batch.images, batch.rng(0))
    assert inputs.shape == (24, 3, 48, 48) and image.tolist() == [n for n in range(6) for _ in range(4)]
    for own in inputs.unflatten(0, (6, 4)):
        for one, other in itertools.combinations(own, 2):
            assert not torch.equal(one, other)
    parts = batch.split(4)
    assert [tuple(part.images.shape) for part in parts] == [(4, 4, 3, 48, 48), (2, 4, 3, 48, 48)]


def test_exemplar_views_have_own_flip_and_color():
    """Of one and the same box, shown four times."""
    network = task(grayscale_prob=0.0)
    source = views(40)[:, :1].expand(-1, 4, -1, -1, -1)
    inputs, _ = network.inputs(source, rng(40))
    own = inputs.unflatten(0, (40, 4))
    for a, b in itertools.combinations(range(4), 2):
        assert not (own[:, a] == own[:, b]).flatten(1).all(1).any()
    # upright or mirrored: the brighter pixels stay where they were, or change sides
    plain = source[:, 0].float().mean(1)
    centered = plain - plain.mean((1, 2), keepdim=True)
    as_it_was = (own.mean(2) * centered[:, None]).mean((2, 3))
    mirrored = (own.mean(2) * centered[:, None].flip(-1)).mean((2, 3))
    flips = mirrored > as_it_was
    assert flips.float().mean() == pytest.approx(0.5, abs=0.12)
    assert (flips.any(1) & ~flips.all(1)).float().mean() > 0.7


def test_exemplar_gray_is_common_to_all_views():
    inputs, _ = task(grayscale_prob=0.66).inputs(views(200), rng(200))
    alike = ((inputs - inputs[:, :1]).abs() < 1e-3).flatten(1).all(1).unflatten(0, (200, 4))
    assert (alike.all(1) | ~alike.any(1)).all()
    assert alike[:, 0].float().mean() == pytest.approx(0.66, abs=0.08)
    each = inputs.double().flatten(1)
    assert torch.allclose(each.mean(1), torch.zeros(800, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(each.std(1, correction=0), torch.ones(800, dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize(("axis", "dim"), [("view", 1), ("batch", 0)])
def test_exemplar_norm_axis_selects_the_normalization(axis: str, dim: int):
    network = task(norm_axis=axis).eval()
    batch = Batch(views(6), torch.arange(6), torch.zeros(6, dtype=torch.int64))
    with torch.no_grad():
        found = network(batch, batch.rng(0))
        inputs, image = network.inputs(batch.images, batch.rng(0))
        x = network.embedding(inputs).double()
        x = x / x.square().sum(dim, keepdim=True).sqrt()
    assert float(found["loss"]) == pytest.approx(plain_loss(x, image.tolist(), 0.5), abs=1e-4)
    nearest = (torch.cdist(x, x) + torch.eye(24) * 1e9).argmin(1)
    assert float(found["accuracy"]) == pytest.approx(float((image[nearest] == image).float().mean()))


def test_exemplar_refuses_a_batch_of_one_image():
    network = task()
    batch = Batch(views(1), torch.arange(1), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(TrainingError, match="make batch_size and micro_batch_size 2 or more"):
        network.train()(batch, batch.rng(0))
    assert float(network.eval()(batch, batch.rng(0))["loss"]) == 0.5


def test_exemplar_show_draws_the_inputs():
    network = task().eval()
    batch = Batch(views(3), torch.arange(3), torch.zeros(3, dtype=torch.int64))
    shown = network.show(batch, rng(3))
    assert [caption for caption, _ in shown] == ["first box", "view 1", "view 2", "view 3", "view 4"]
    inputs, _ = network.inputs(batch.images, rng(3))
    assert torch.equal(torch.stack([one for _, one in shown[1:]], 1)[:, 2], visible(inputs)[2::4])


def test_semi_hard_loss_matches_worked_example():
    """Views at 0 and 1 of one image, at 1.5 and 4 of another; squared distances, margin 0.5.

    0 to 1: 1, nearest farther negative 2.25; 1 to 0: 1, negative 9; 4 to 1.5: 6.25, negative 9: no loss. 1.5 to 4:
    6.25, no negative is farther, so that the farthest counts, 2.25: 6.25 + 0.5 - 2.25 = 4.5. The mean is 1.125.
    """
    x = torch.tensor([0.0, 1.0, 1.5, 4.0])
    image = torch.tensor([0, 0, 1, 1])
    distance = squared_distances(x[:, None])
    assert semi_hard_loss(distance, image[:, None] == image, 0.5).item() == pytest.approx(1.125, rel=1e-5)
