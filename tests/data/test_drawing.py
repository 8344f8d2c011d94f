import numpy as np
import torch

from ssltransfer.data.drawing import BLUE, ORANGE, mosaic, outlined, visible


def test_inputs_are_scaled_equally_in_all_channels():
    x = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 9.0]).view(2, 1, 1, 1)
    found = visible(x)
    assert found.dtype == torch.uint8 and found.flatten(1).amin(1).tolist() == [0, 0]
    assert found.flatten(1).amax(1).tolist() == [255, 255]
    order = x[0].flatten().argsort()
    assert (found[0].flatten()[order].int().diff() >= 0).all()  # one rising curve for all three channels
    assert visible(torch.full((1, 3, 4, 4), 7.0)).sum() == 0


def test_tile_grid_is_row_major_with_white_gaps():
    tiles = torch.arange(9, dtype=torch.uint8).view(1, 9, 1, 1, 1).expand(2, 9, 3, 5, 5)
    found = mosaic(tiles)
    assert found.shape == (2, 3, 23, 23)
    for place in range(9):
        top, left = place // 3 * 9, place % 3 * 9
        assert (found[:, :, top : top + 5, left : left + 5] == place).all()
    assert (found[:, :, 5:9] == 255).all() and (found[:, :, :, 14:18] == 255).all()


def test_outlines_are_blue_then_orange_on_a_copy():
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    square = torch.tensor([(5.0, 5.0), (15.0, 5.0), (15.0, 15.0), (5.0, 15.0)])
    found = outlined(image, torch.stack([square, square + 18])).permute(1, 2, 0).numpy()
    assert not image.any()
    assert (found[10, 5] == BLUE).all() and (found[28, 33] == ORANGE).all()
    assert (found[10, 10] == 0).all() and {tuple(c) for c in np.unique(found.reshape(-1, 3), axis=0)} == {
        (0, 0, 0),
        BLUE,
        ORANGE,
    }
