"""Kolesnikov's jigsaw and relative patch location: labels and pixels of the patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ssltransfer.config.backbones import ResNet18
from ssltransfer.config.tasks import JigsawKolesnikov, RelativePatchLocation, Tiles
from ssltransfer.data.drawing import mosaic, visible
from ssltransfer.data.loader import Batch
from ssltransfer.data.permutations import mean_distance
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.tiles import OFFSETS
from ssltransfer.data.transforms import Warp
from ssltransfer.tasks.pretext.jigsaw_kolesnikov import JigsawKolesnikovTask
from ssltransfer.tasks.pretext.patches import PatchTask
from ssltransfer.tasks.pretext.relative_patch_location import RelativePatchLocationTask

BACKBONE = ResNet18(width_mult=0.125, img_size=48)
CUT = {"crop": 48, "tile": 16, "jitter": 0, "channel_shift": 0}
SIDE = 60


def task(kind: str = "jigsaw", **more: Any) -> PatchTask:
    given = {"tiles": CUT, "resize": SIDE, "hidden_dim": 16, "embed_dim": 8, "grayscale_prob": 0.0, **more}
    if kind == "jigsaw":
        given = {"permutations": 8, "permutations_per_image": 4, **given}
        return JigsawKolesnikovTask(JigsawKolesnikov.model_validate(given), BACKBONE, 0)
    return RelativePatchLocationTask(RelativePatchLocation.model_validate(given), BACKBONE, 0)


def images(n: int) -> Tensor:
    return torch.randint(0, 256, (n, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def rng(n: int) -> SampleRNG:
    return SampleRNG(1, 0, torch.arange(n))


def place_in(image: Tensor, patch: Tensor) -> tuple[int, int]:
    """Top and left of the only window of the image that has the pixels of a standardized patch."""
    side = patch.shape[-1]
    windows = image.float().unfold(1, side, 1).unfold(2, side, 1).permute(1, 2, 0, 3, 4)
    flat = windows.flatten(2)
    off = (flat - flat.mean(2, keepdim=True)) / flat.std(2, correction=0, keepdim=True) - patch.flatten()
    at = (off.abs().amax(2) < 1e-3).nonzero()
    assert len(at) == 1
    return int(at[0, 0]), int(at[0, 1])


def test_patch_tasks_have_the_published_settings():
    for options in (JigsawKolesnikov(), RelativePatchLocation()):
        assert options.tiles == Tiles(crop=255, tile=64, jitter=21, channel_shift=0)
        assert (options.resize, options.grayscale_prob, options.embed_dim, options.hidden_dim) == (
            292,
            0.66,
            1000,
            4096,
        )
        kind = JigsawKolesnikovTask if isinstance(options, JigsawKolesnikov) else RelativePatchLocationTask
        small = options.model_copy(update={"embed_dim": 50, "hidden_dim": 40})
        network = kind(small, ResNet18(width_mult=0.125, img_size=64), 0)  # type: ignore[arg-type]
        assert network.transform == Warp(292)
        joined, answers = (9, 100) if isinstance(options, JigsawKolesnikov) else (2, 8)
        head = network.network
        assert [tuple(part.weight.shape) for part in head.modules() if isinstance(part, nn.Linear)] == [
            (50, 64),
            (40, joined * 50),
            (answers, 40),
        ]
        norm = head.fc7[1]
        assert isinstance(norm, nn.BatchNorm1d) and (norm.eps, norm.momentum) == (1e-5, pytest.approx(1 - 0.997))


def test_patches_without_jitter_are_the_crop():
    """Without jitter the nine patches, in the image's order, tile a 48 x 48 crop of it."""
    source = images(4)
    patches, _ = task().train().inputs(source, rng(4))
    corners = set()
    for image, nine in zip(source, patches, strict=True):
        top, left = place_in(image, nine[0])
        corners.add((top, left))
        for cell in range(9):
            assert place_in(image, nine[cell]) == (top + 16 * (cell // 3), left + 16 * (cell % 3))
    assert len(corners) > 2  # a random crop


def test_patches_of_validation_are_centered():
    network = task(tiles={**CUT, "tile": 10, "jitter": 6}).eval()
    source = images(3)
    patches, labels = network.inputs(source, rng(3))
    for image, nine in zip(source, patches, strict=True):
        for cell in range(9):
            assert place_in(image, nine[cell]) == (6 + 3 + 16 * (cell // 3), 6 + 3 + 16 * (cell % 3))
    again, same = network.inputs(source, rng(3))
    assert torch.equal(patches, again) and torch.equal(labels, same)


def test_patches_fill_their_cells():
    """Published cells of 85 hold patches of 64 at 22 x 22 places; neighbors are 0 to 42 pixels apart."""
    network = task(tiles={**CUT, "tile": 10, "jitter": 6}).train()
    source = images(60)
    patches, _ = network.inputs(source, rng(60))
    found = [place_in(p, nine[4]) for p, nine in zip(source, patches, strict=True)]
    corners = [place_in(p, nine[0]) for p, nine in zip(source, patches, strict=True)]
    apart = {(y - top, x - left) for (y, x), (top, left) in zip(found, corners, strict=True)}
    rows, columns = zip(*apart, strict=True)
    assert set(rows) | set(columns) == set(range(16 - 6, 16 + 6 + 1))


def test_jigsaw_kolesnikov_permutations_are_distinct():
    network = task()
    labels = network.labels(rng(400))
    assert labels.shape == (400, 4)
    assert all(len(set(row)) == 4 for row in labels.tolist())
    share = torch.bincount(labels.flatten(), minlength=8) / labels.numel()
    assert (share - 1 / 8).abs().max() < 0.03
    whole = JigsawKolesnikovTask(
        JigsawKolesnikov(hidden_dim=8, embed_dim=8), ResNet18(width_mult=0.125, img_size=64), 0
    )
    found = whole.permutations.numpy()  # type: ignore[operator]
    assert len(found) == 100 and mean_distance(found) > 0.89


def test_jigsaw_kolesnikov_label_undoes_the_order():
    """What the head is given for answer p are the embeddings in the order of permutation p."""
    network = task()
    labels = network.labels(rng(5))
    orders = network.orders(labels)
    assert orders.shape == (5, 4, 9)
    for image in range(5):
        for question in range(4):
            row = network.permutations[labels[image, question]]  # type: ignore[index]
            assert orders[image, question].tolist() == row.tolist()
            shown = [f"patch {cell}" for cell in row.tolist()]
            back = [shown[slot] for slot in row.long().argsort().tolist()]
            assert back == [f"patch {cell}" for cell in range(9)]


@pytest.mark.parametrize("kind", ["jigsaw", "location"])
def test_patch_network_concatenates_the_embeddings(kind: str):
    network = task(kind, dropout=0.0).eval()
    patches, labels = network.inputs(images(3), rng(3))
    order = network.orders(labels)
    with torch.no_grad():
        logits = network.network(patches, order).unflatten(0, labels.shape)
        for image in range(3):
            each = network.network.embedding(patches[image])
            for question in range(labels.shape[1]):
                joined = torch.cat([each[cell] for cell in order[image, question]])
                expected = network.network.fc8(network.network.fc7(joined[None]))[0]
                assert torch.allclose(logits[image, question], expected, atol=1e-5)


def test_relative_patch_location_label_is_the_neighbor():
    network = task("location").train()
    source = images(2)
    patches, labels = network.inputs(source, rng(2))
    assert labels.tolist() == [list(range(8))] * 2
    order = network.orders(labels)
    for image, nine, label, pairs in zip(source, patches, labels, order, strict=True):
        for answer, (outer, center) in zip(label.tolist(), pairs.tolist(), strict=True):
            top, left = place_in(image, nine[outer])
            middle_top, middle_left = place_in(image, nine[center])
            assert (left - middle_left, top - middle_top) == tuple(16 * step for step in OFFSETS[answer])


def channels_alike(patches: Tensor) -> Tensor:
    """bool (B, 9): all three channels have the same values."""
    return (patches == patches[:, :, :1]).flatten(2).all(2)


def test_patches_gray_per_image_or_per_patch():
    source, some = images(300), rng(300)
    together = channels_alike(task(grayscale_prob=0.66).inputs(source, some)[0])
    assert (together.all(1) | ~together.any(1)).all() and together[:, 0].float().mean() == pytest.approx(0.66, abs=0.08)
    each = channels_alike(task(grayscale_prob=0.66, grayscale_per_patch=True).inputs(source, some)[0])
    assert each.float().mean() == pytest.approx(0.66, abs=0.03)
    assert (each.any(1) & ~each.all(1)).float().mean() > 0.9
    # gray is the mean of the channels: the pixels of a gray patch are that of the image's mean
    row = int(together[:, 0].nonzero()[0, 0])
    gray = source[row].float().mean(0, keepdim=True).expand(3, -1, -1)
    place_in(gray, task(grayscale_prob=0.66).inputs(source, some)[0][row, 0])


def test_patches_are_standardized():
    """A ramp over the image, which betrays every place by its level, leaves nine patches that are all the same."""
    ramp = (torch.arange(SIDE)[:, None] * 2 + torch.arange(SIDE)).to(torch.uint8).expand(1, 3, SIDE, SIDE)
    patches, _ = task(tiles={**CUT, "tile": 10, "jitter": 6}).inputs(ramp, rng(1))
    assert torch.allclose(patches, patches[:, :1].expand_as(patches), atol=1e-5)
    assert torch.allclose(patches.mean((2, 3, 4)), torch.zeros(1, 9), atol=1e-5)
    assert torch.allclose(patches.std((2, 3, 4), correction=0), torch.ones(1, 9), atol=1e-5)


def test_patches_of_one_color_stay_finite():
    blank = torch.full((2, 3, SIDE, SIDE), 17, dtype=torch.uint8)
    patches, _ = task(grayscale_prob=0.5).inputs(blank, rng(2))
    assert torch.equal(patches, torch.zeros_like(patches))


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        (
            JigsawKolesnikov,
            {"permutations_per_image": 9, "permutations": 8},
            "permutations_per_image 9 is more than the 8 permutations",
        ),
        (RelativePatchLocation, {"resize": 240}, "a crop of 255 does not fit in images of 240"),
        (RelativePatchLocation, {"tiles": {"crop": 100, "tile": 20}}, "crop 100 is not a multiple of 3"),
    ],
)
def test_patch_options_refuse_errors(kind: Any, given: dict[str, Any], says: str):
    with pytest.raises(ValidationError, match=says):
        kind.model_validate(given)


def test_patch_tasks_show_the_inputs():
    batch = Batch(images(3), torch.arange(3), torch.zeros(3, dtype=torch.int64))
    puzzle = task().eval()
    (_, whole), (_, first), (_, second), (_, back) = puzzle.show(batch, rng(3))
    assert torch.equal(whole, batch.images)
    patches, _ = puzzle.inputs(batch.images, rng(3))
    assert torch.equal(back, mosaic(visible(patches))) and not torch.equal(first, second)
    columns = task("location").eval().show(batch, rng(3))
    assert [caption for caption, _ in columns] == ["image", "center", *(f"answer: {n}" for n in range(8))]
    assert torch.equal(columns[2][1], visible(patches[:, 0])) and torch.equal(columns[1][1], visible(patches[:, 4]))
