"""Puzzles and pairs cut from batches of images: jigsaw tiles, occluders, relative patch locations.

Images are (B, C, H, W) of any dtype on any device. All tiles of a batch are cut by one gather. All random numbers come
from `SampleRNG`: the tiles of a sample do not depend on its batch or the device. Slots and cells are counted row by
row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssltransfer.config.tasks import PatchGrid, Tiles
from ssltransfer.data.device_ops import random_corners, windows
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transfer import to_device

# (dx, dy) of the second patch as seen from the first; the place in this row is the label
# (pos2lbl of cdoersch/deepcontext).
OFFSETS = ((-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1))


def cut_tiles(images: Tensor, rng: SampleRNG | None, options: Tiles, *, purpose: str = "tiles") -> Tensor:
    """Cut the 3x3 tiles of a jigsaw puzzle, in the order of the image.

    A random square crop is divided in cells of a third. The upper left corner of each tile is offset by 0..jitter
    from that of its cell in x and y, and each color channel of a tile by 0..channel_shift more, against the chromatic
    aberration shortcut (Noroozi & Favaro 2016; protocols.md 1.1, 1.2).

    Args:
        images: (B, C, H, W), H and W at least `crop`.
        rng: random numbers of the samples. None takes the center crop and the center of each cell, with no shift: for
            features of tiles. A validation loss uses random puzzles as in training, of a fixed epoch.
        options: sizes in pixels.
        purpose: of the random numbers; the occluders of a puzzle, cut with the same random numbers, need another.

    Returns:
        (B, 9, C, tile, tile), dtype of the images.
    """
    batch, channels = images.shape[:2]
    cell = options.crop // 3
    room = cell - options.tile
    jitter = room - options.channel_shift if options.jitter is None else options.jitter
    corner = random_corners(images, rng, options.crop, purpose=f"{purpose}/crop")
    number = torch.arange(9)
    starts = []  # on the CPU
    for axis, base, place in zip("yx", corner, (number // 3, number % 3), strict=True):
        start = (base[:, None] + place * cell)[:, :, None].expand(batch, 9, channels)
        if rng is None:
            start = start + room // 2
        else:
            offset = rng.host.integers(f"{purpose}/jitter/{axis}", 9, jitter + 1)
            shift = rng.host.integers(f"{purpose}/channels/{axis}", 9 * channels, options.channel_shift + 1)
            start = start + offset[:, :, None] + shift.reshape(batch, 9, channels)
        starts.append(start)
    top, left = to_device(torch.stack(starts), images.device)
    sample = torch.arange(batch, device=images.device)[:, None, None]
    return windows(images, options.tile)[sample, torch.arange(channels, device=images.device), top, left]


def permute(tiles: Tensor, perms: Tensor, label: Tensor) -> Tensor:
    """Tiles (B, T, ...) in the order of permutation `label`: slot i of the result shows tile perms[label][i].

    `perms` are integers (N, T), from 0, and `label` int64 (B,) their rows.
    """
    order = perms.to(tiles.device)[label].long()
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], order]


def occlude(tiles: Tensor, occluders: Tensor, rng: SampleRNG, counts: Sequence[int]) -> Tensor:
    """Cover some slots of each puzzle by tiles of another image (Noroozi et al. 2018, section 4).

    The number of slots is uniform over `counts`. The slots are distinct and random, each covered by a random and
    distinct tile of the other image (released merge_data_layer.cpp; protocols.md 1.2).

    Args:
        tiles: (B, T, C, H, W), before or after `permute`: the distribution is the same.
        occluders: like tiles, row i from an image other than row i of tiles.
        rng: random numbers of the puzzles.
        counts: the numbers of covered slots, each at most T.
    """
    slots = tiles.shape[1]
    if not counts or not all(0 <= c <= slots for c in counts):
        raise ValueError(f"Of {slots} tiles, {list(counts)} cannot be occluded; use numbers from 0 to {slots}.")
    which = rng.host.integers("occlude/count", 1, len(counts))
    count = torch.tensor(counts)[which]
    covered = to_device(rng.host.permutation("occlude/slots", slots) < count, tiles.device)
    source = rng.permutation("occlude/source", slots)
    other = occluders[torch.arange(len(tiles), device=tiles.device)[:, None], source]
    return torch.where(covered[:, :, None, None, None], other, tiles)


@dataclass(frozen=True)
class PatchPairs:
    """N patches, each run through the backbone once, and M labeled pairs of them."""

    patches: Tensor
    """(N, C, patch, patch), dtype of the images, in the order of images, grids, rows and columns."""
    corners: Tensor
    """int64 (N, 3), on the CPU: image, top, left."""
    rng: SampleRNG
    """One stream of random numbers per patch, for example for color dropping."""
    first: Tensor
    """int64 (M,), rows of patches."""
    second: Tensor
    """int64 (M,), rows of patches."""
    label: Tensor
    """int64 (M,), 0..7: position of the second relative to the first, a row of OFFSETS."""


def patch_pairs(images: Tensor, rng: SampleRNG, options: PatchGrid) -> PatchPairs:
    """Cut patches on random grids and pair all neighbors in both orders (protocols.md 1.3a).

    As cdoersch/deepcontext train.py: the grid starts at a random position in [0, patch + gap), has as many columns and
    rows as fit, and each patch is moved by up to `jitter` in x and y, then clipped to the image. If an image is too
    small for two columns (rows) after the largest start, the start is drawn from those that leave room for two, so that
    every grid has at least 12 pairs.

    Args:
        images: (B, C, H, W), H and W at least 2 * patch + gap.
        rng: random numbers of the images.
        options: sizes in pixels, and the numbers of grids and of pairs per image.
    """
    batch, _, height, width = images.shape
    patch, grids, draw = options.patch, options.grids_per_image, rng.host
    pitch = patch + options.gap
    rows, columns = (height + options.gap) // pitch, (width + options.gap) // pitch
    places: list[Tensor] = []  # top, left: (B, grids, rows, columns)
    fits: list[Tensor] = []  # likewise, bool: the cell is inside
    for axis, size, shape in (("y", height, (rows, 1)), ("x", width, (1, columns))):
        starts = min(pitch, size - patch - pitch + 1)
        origin = draw.integers(f"pairs/origin/{axis}", grids, starts)[:, :, None, None]
        moved = draw.integers(f"pairs/jitter/{axis}", grids * rows * columns, 2 * options.jitter + 1) - options.jitter
        on_grid = origin + pitch * torch.arange(max(shape)).reshape(shape)
        places.append((on_grid + moved.reshape(batch, grids, rows, columns)).clamp(0, size - patch))
        fits.append(on_grid + patch <= size)
    inside = (fits[0] & fits[1]).reshape(batch, grids, rows * columns)

    one, two, labels = (torch.tensor(t) for t in zip(*_neighbors(rows, columns), strict=True))
    valid = (inside[:, :, one] & inside[:, :, two]).flatten(1)  # (B, grids * pairs of a grid)
    if (pairs := options.pairs_per_image) is not None:
        rank = draw.permutation("pairs/choice", valid.shape[1]).masked_fill(~valid, valid.shape[1])
        last = rank.sort(dim=1).values[:, pairs - 1 : pairs]
        valid = valid & (rank <= last)
    sample, grid, pair = valid.reshape(batch, grids, -1).nonzero(as_tuple=True)

    ends = (sample * grids + grid) * rows * columns + torch.stack((one, two))[:, pair]
    kept, (first, second) = ends.unique(return_inverse=True)
    cell_of = kept % (grids * rows * columns)
    image = kept // (grids * rows * columns)
    corners = torch.stack((image, *(place.flatten()[kept] for place in places)), dim=1)
    at = to_device(corners, images.device)
    first, second, label = to_device(torch.stack((first, second, labels[pair])), images.device)
    return PatchPairs(
        patches=windows(images, patch)[at[:, 0], :, at[:, 1], at[:, 2]],
        corners=corners,
        # A number drawn from the sample's stream is the patch's id and its cell the epoch: no other patch has this
        # stream.
        rng=SampleRNG(rng.seed, cell_of, draw.bits("pairs/patch", 1)[image, 0], images.device),
        first=first,
        second=second,
        label=label,
    )


def _neighbors(rows: int, columns: int) -> list[tuple[int, int, int]]:
    """(cell, neighbor, label) for all ordered neighbors of a grid."""
    return [
        (y * columns + x, (y + dy) * columns + x + dx, label)
        for y in range(rows)
        for x in range(columns)
        for label, (dx, dy) in enumerate(OFFSETS)
        if 0 <= y + dy < rows and 0 <= x + dx < columns
    ]
