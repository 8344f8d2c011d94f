from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from ssltransfer.config.tasks import RelativePosition, Tiles
from ssltransfer.data import permutations
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.tiles import OFFSETS, cut_tiles, occlude, patch_pairs, permute
from tests.helpers.pretended_cuda import CUDA, on_gpu

PAIRS = RelativePosition(patch=24, gap=12, jitter=2, crop_size=64, area_range=(4096, 4096))
SMALL = Tiles(crop=75, tile=20)


def coordinates(batch: int, height: int, width: int) -> Tensor:
    """Images whose three channels hold image, row and column: a tile says where it was cut."""
    planes = torch.meshgrid(torch.arange(batch), torch.arange(height), torch.arange(width), indexing="ij")
    one = torch.stack(planes, dim=1)
    return torch.stack([one, one + 0, one * 1]).permute(1, 0, 2, 3, 4)  # (B, 3 colors, 3 planes, H, W)


def places(batch: int, size: int, rng: SampleRNG | None) -> tuple[Tensor, Tensor]:
    """Row and column of the first pixel of each tile and color, (B, 9, 3), told by the pixels themselves."""
    planes = coordinates(batch, size, size)
    rows, columns = (cut_tiles(planes[:, :, k], rng, SMALL) for k in (1, 2))
    steps = torch.arange(20)
    assert torch.equal(rows - rows[..., :1, :1], steps[:, None].expand_as(rows))
    assert torch.equal(columns - columns[..., :1, :1], steps.expand_as(columns))
    return rows[..., 0, 0], columns[..., 0, 0]


def plain_tiles(image: Tensor, rng: SampleRNG, crop: int, tile: int, jitter: int, shift: int) -> Tensor:
    height, width = image.shape[-2:]
    top = int(rng.integers("tiles/crop/y", 1, height - crop + 1))
    left = int(rng.integers("tiles/crop/x", 1, width - crop + 1))
    jy, jx = (rng.integers(f"tiles/jitter/{a}", 9, jitter + 1)[0] for a in "yx")
    sy, sx = (rng.integers(f"tiles/channels/{a}", 27, shift + 1)[0] for a in "yx")
    out = torch.empty(9, 3, tile, tile, dtype=image.dtype)
    for k in range(9):
        for c in range(3):
            y = top + (k // 3) * (crop // 3) + int(jy[k]) + int(sy[3 * k + c])
            x = left + (k % 3) * (crop // 3) + int(jx[k]) + int(sx[3 * k + c])
            out[k, c] = image[c, y : y + tile, x : x + tile]
    return out


@pytest.mark.parametrize(("crop", "tile", "jitter", "shift"), [(255, 64, 18, 2), (255, 64, 21, 0), (75, 20, 3, 2)])
def test_cut_matches_plain_loop(crop: int, tile: int, jitter: int, shift: int):
    images = torch.randint(0, 256, (3, 3, crop + 5, crop + 9), dtype=torch.uint8)
    ids = torch.tensor([8, 3, 77])
    options = Tiles(crop=crop, tile=tile, jitter=jitter, channel_shift=shift)
    found = cut_tiles(images, SampleRNG(1, 2, ids), options)
    assert found.shape == (3, 9, 3, tile, tile) and found.dtype == torch.uint8
    for row in range(3):
        alone = SampleRNG(1, 2, ids[row : row + 1])
        assert torch.equal(found[row], plain_tiles(images[row], alone, crop, tile, jitter, shift))


def test_cut_positions_cover_the_cell():
    rows, columns = places(600, 75, SampleRNG(0, 0, torch.arange(600)))
    for place, index in ((rows, torch.arange(9) // 3), (columns, torch.arange(9) % 3)):
        offset = place - 25 * index[:, None]
        assert offset.min() == 0 and offset.max() == 5  # cell 25, tile 20
        spread = offset.max(dim=2).values - offset.min(dim=2).values
        assert spread.min() == 0 and spread.max() == 2  # between the colors of a tile
        # Jitter 0..3 plus a shift 0..2, both uniform.
        counts = torch.bincount(offset[:, :, 0].flatten()).double()
        expected = torch.tensor([1.0, 2, 3, 3, 2, 1]) / 12 * counts.sum()
        assert stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


def test_cut_offsets_are_independent():
    rows, columns = places(400, 75, SampleRNG(0, 0, torch.arange(400)))
    moves = torch.stack([rows[:, 0, 0], rows[:, 4, 0], columns[:, 0, 0], columns[:, 4, 0]]).double()
    assert (torch.corrcoef(moves) - torch.eye(4)).abs().max() < 0.2
    shifts = torch.stack([rows[:, 0, 1] - rows[:, 0, 0], columns[:, 0, 1] - columns[:, 0, 0]]).double()
    assert torch.corrcoef(shifts)[0, 1].abs() < 0.2


def test_cut_without_rng_is_centered():
    rows, columns = places(2, 81, None)
    expected = 3 + 2 + 25 * torch.arange(3)
    assert torch.equal(rows, expected.repeat_interleave(3)[None, :, None].expand(2, 9, 3))
    assert torch.equal(columns, expected.repeat(3)[None, :, None].expand(2, 9, 3))


def test_cut_purpose_gives_independent_tiles():
    rng = SampleRNG(0, 0, torch.arange(50))
    images = torch.randint(0, 256, (50, 3, 90, 90), dtype=torch.uint8)
    main, other = (cut_tiles(images, rng, SMALL, purpose=p) for p in ("tiles", "occluders"))
    assert (main != other).flatten(1).any(dim=1).float().mean() > 0.9


def test_tiles_are_independent_of_batch():
    images = torch.randint(0, 256, (6, 3, 96, 96), dtype=torch.uint8)
    ids = torch.tensor([5, 1, 99, 4, 2, 12])
    batch = cut_tiles(images, SampleRNG(7, 1, ids), SMALL)
    order = torch.tensor([3, 0, 5])
    assert torch.equal(cut_tiles(images[order], SampleRNG(7, 1, ids[order]), SMALL), batch[order])


def test_cut_refuses_small_images():
    with pytest.raises(ValueError, match="no crop of 99x99"):
        cut_tiles(torch.zeros(1, 3, 96, 96), SampleRNG(0, 0, torch.arange(1)), Tiles(crop=99, tile=20))


def test_permute_and_its_inverse():
    perms = torch.from_numpy(permutations.min_distance_set(50))
    tiles = torch.randn(20, 9, 3, 4, 4)
    label = SampleRNG(0, 0, torch.arange(20)).integers("label", 1, 50)[:, 0]
    shuffled = permute(tiles, perms, label)
    for b in range(20):
        for slot in range(9):
            assert torch.equal(shuffled[b, slot], tiles[b, int(perms[label[b], slot])])
    inverse = perms.long().argsort(dim=1)
    assert torch.equal(permute(shuffled, inverse, label), tiles)


def test_occlude_uses_other_image_in_published_numbers():
    batch = 3000
    here = torch.arange(9.0).reshape(1, 9, 1, 1, 1).expand(batch, 9, 3, 2, 2)
    puzzles = occlude(here, here + 100, SampleRNG(2, 0, torch.arange(batch)), (0, 1, 2))
    shown = puzzles[:, :, 0, 0, 0]
    covered = shown >= 100
    assert torch.equal(puzzles, shown[:, :, None, None, None].expand_as(puzzles))
    assert torch.equal(shown[~covered], torch.arange(9.0).expand(batch, 9)[~covered])
    counts = torch.bincount(covered.sum(1), minlength=3)
    assert len(counts) == 3 and stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert stats.chisquare(covered.sum(0).numpy()).pvalue > 1e-3
    sources = shown[covered] - 100
    assert stats.chisquare(torch.bincount(sources.long(), minlength=9).numpy()).pvalue > 1e-3
    double = shown[covered.sum(1) == 2]
    pairs = double[double >= 100].reshape(-1, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    same_slot = (sources.long() == covered.nonzero()[:, 1]).float().mean()
    assert abs(same_slot - 1 / 9) < 0.03  # the source is independent of the slot


@pytest.mark.parametrize("counts", [(0,), (9,), (3, 5)])
def test_occlude_respects_counts(counts: tuple[int, ...]):
    tiles = torch.zeros(64, 9, 1, 1, 1)
    puzzles = occlude(tiles, tiles + 1, SampleRNG(2, 0, torch.arange(64)), counts)
    assert set(puzzles.flatten(1).sum(1).tolist()) == set(counts)


def test_occlude_refuses_impossible_counts():
    tiles = torch.zeros(2, 9, 1, 1, 1)
    with pytest.raises(ValueError, match="cannot be occluded"):
        occlude(tiles, tiles, SampleRNG(0, 0, torch.arange(2)), (0, 10))


def test_puzzle_labels_are_uniform():
    labels = SampleRNG(0, 0, torch.arange(50_000)).integers("permutation", 1, 701)[:, 0]
    assert stats.chisquare(torch.bincount(labels, minlength=701).numpy()).pvalue > 1e-3


def plain_label(posx: int, posy: int) -> int:
    """pos2lbl of cdoersch/deepcontext."""
    return {-1: posx + 1, 0: (posx + 7) // 2, 1: posx + 6}[posy]


def test_offsets_are_numbered_as_in_released_code():
    assert [plain_label(*o) for o in OFFSETS] == list(range(8))


@pytest.mark.parametrize(("height", "width"), [(383, 420), (600, 500)])
def test_pairs_match_plain_loop(height: int, width: int):
    ids = torch.tensor([3, 14])
    planes = coordinates(2, height, width)
    found = patch_pairs(planes[:, 0].to(torch.float32), SampleRNG(1, 0, ids), RelativePosition(grids_per_image=2))
    pitch = 144
    kept: list[Any] = []
    pairs: list[Any] = []
    for b in range(2):
        alone = SampleRNG(1, 0, ids[b : b + 1])
        max_rows, max_columns = (height + 48) // pitch, (width + 48) // pitch
        origins = [alone.integers(f"pairs/origin/{a}", 2, 144)[0] for a in "yx"]
        jitter = [
            alone.integers(f"pairs/jitter/{a}", 2 * max_rows * max_columns, 15)[0].reshape(2, max_rows, -1) - 7
            for a in "yx"
        ]
        for g in range(2):
            oy, ox = int(origins[0][g]), int(origins[1][g])
            index = {}
            for y in range((height + 48 - oy) // pitch):
                for x in range((width + 48 - ox) // pitch):
                    top = min(max(oy + y * pitch + int(jitter[0][g, y, x]), 0), height - 96)
                    left = min(max(ox + x * pitch + int(jitter[1][g, y, x]), 0), width - 96)
                    index[y, x] = len(kept)
                    kept.append((b, top, left))
            for (y, x), j in index.items():
                for dx in (-1, 0, 1):
                    for dy in (-1, 0, 1):
                        if (dx or dy) and (y + dy, x + dx) in index:
                            pairs.append((j, index[y + dy, x + dx], plain_label(dx, dy)))
    assert found.corners.tolist() == [list(k) for k in kept]
    assert sorted(zip(found.first.tolist(), found.second.tolist(), found.label.tolist(), strict=True)) == sorted(pairs)
    # The pixels themselves: channels are image, row and column.
    assert torch.equal(found.patches[:, :, 0, 0].long(), found.corners)
    assert torch.equal(found.patches[:, :, -1, -1].long(), found.corners + torch.tensor([0, 95, 95]))


@pytest.mark.parametrize("size", [60, 75, 96])
def test_pairs_label_is_position_of_second_patch(size: int):
    planes = coordinates(40, size, size)[:, 0].to(torch.float32)
    found = patch_pairs(planes, SampleRNG(0, 0, torch.arange(40)), PAIRS)
    one, two = found.corners[found.first], found.corners[found.second]
    assert torch.equal(one[:, 0], two[:, 0])
    expected = torch.tensor(OFFSETS)[found.label].flip(1)  # rows first
    moved = two[:, 1:] - one[:, 1:]
    assert torch.equal(torch.sign(moved) * (moved.abs() > 4), expected)
    # Never closer than gap - 2 * jitter, so that no border can be matched.
    assert moved[expected != 0].abs().min() >= 36 - 4
    counts = torch.bincount(one[:, 0], minlength=40)
    assert counts.min() >= 4 * 12
    by_label = torch.bincount(found.label, minlength=8)
    assert torch.equal(by_label, by_label.flip(0))  # both orders
    assert found.corners[:, 1:].min() >= 0 and found.corners[:, 1:].max() <= size - 24


def test_pairs_subset_is_uniform():
    planes = coordinates(300, 60, 60)[:, 0].to(torch.float32)
    options = PAIRS.model_copy(update={"jitter": 0, "grids_per_image": 1})
    rng = SampleRNG(0, 0, torch.arange(300))
    everything = patch_pairs(planes, rng, options)
    some = patch_pairs(planes, rng, options.model_copy(update={"pairs_per_image": 3}))

    def named(p) -> list[tuple]:
        ends = zip(p.corners[p.first].tolist(), p.corners[p.second].tolist(), p.label.tolist(), strict=True)
        return [(*a, *b, label) for a, b, label in ends]

    assert set(named(some)) <= set(named(everything)) and len(set(named(some))) == 900
    assert torch.bincount(some.corners[some.first][:, 0]).tolist() == [3] * 300
    assert torch.cat([some.first, some.second]).unique().tolist() == list(range(len(some.patches)))
    # Of the 12 pairs of a 2x2 grid, each side neighbor is there twice, each diagonal once.
    weights = torch.tensor([1, 2, 1, 2, 2, 1, 2, 1]) / 12 * 900
    assert stats.chisquare(torch.bincount(some.label, minlength=8).numpy(), weights.numpy()).pvalue > 1e-3


def test_pairs_are_independent_of_batch_and_patch():
    planes = coordinates(5, 96, 96)[:, 0].to(torch.float32)
    ids = torch.tensor([9, 2, 31, 7, 0])
    batch = patch_pairs(planes, SampleRNG(3, 1, ids), PAIRS)
    alone = patch_pairs(planes[2:3], SampleRNG(3, 1, ids[2:3]), PAIRS)
    rows = batch.corners[:, 0] == 2
    assert torch.equal(batch.patches[rows], alone.patches)
    assert torch.equal(batch.rng.bits("x", 3)[rows], alone.rng.bits("x", 3))
    mine = rows[batch.first]
    assert torch.equal(batch.label[mine], alone.label)
    assert torch.equal(batch.corners[batch.first[mine], 1:], alone.corners[alone.first, 1:])
    assert batch.rng.bits("x", 1).unique().numel() == len(batch.patches)


@pytest.mark.gpu
def test_tiles_on_a_gpu_equal_the_cpu():
    images = torch.randint(0, 256, (8, 3, 300, 280), dtype=torch.uint8)
    perms, label, ids = torch.from_numpy(permutations.min_distance_set(20)), torch.arange(8), torch.arange(8)
    found = []
    with on_gpu() as cuda:
        for some, rng in ((images, SampleRNG(0, 0, ids)), (images.cuda(), SampleRNG(0, 0, ids, CUDA))):
            tiles = permute(cut_tiles(some, rng, Tiles()), perms, label.to(some.device))
            puzzle = occlude(tiles, cut_tiles(some.flip(0), rng, Tiles(), purpose="other"), rng, (0, 1, 2))
            pairs = patch_pairs(some, rng, RelativePosition(pairs_per_image=10))
            found.append([t.cpu() for t in (puzzle, pairs.patches, pairs.first, pairs.second, pairs.label)])
    assert not cuda.faults
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
