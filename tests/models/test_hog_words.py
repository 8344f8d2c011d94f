import numpy as np
import pytest
import torch
from skimage.feature import hog as theirs

from ssltransfer.config.backbones import HogWords
from ssltransfer.models import hog_words
from ssltransfer.models.build import build_backbone
from ssltransfer.models.hog_words import DESCRIPTOR, hog


@pytest.mark.parametrize(("side", "cell"), [(64, 8), (48, 6), (66, 8)])
def test_hog_matches_scikit_image(side: int, cell: int):
    gray = np.random.default_rng(side).random((3, side, side)).astype(np.float32)
    gray[1, :, : side // 2] = 0.5  # flat areas: blocks without any gradient
    found = hog(torch.from_numpy(gray), cell)
    for image, descriptors in zip(gray, found, strict=True):
        expected = theirs(
            image.astype(np.float64),
            orientations=9,
            pixels_per_cell=(cell, cell),
            cells_per_block=(2, 2),
            block_norm="L2-Hys",
            feature_vector=False,
        )
        blocks = side // cell - 1
        assert expected.shape == (blocks, blocks, 2, 2, 9)
        assert np.allclose(descriptors, expected.reshape(blocks**2, DESCRIPTOR), atol=2e-4)


def test_hog_at_the_published_setting_has_961_descriptors():
    assert hog(torch.rand(1, 256, 256), 8).shape == (1, 961, 36)


def test_hog_words_counts_nearest_words(monkeypatch: pytest.MonkeyPatch):
    backbone = build_backbone(HogWords(vocabulary_size=40, img_size=64), include_top=True)
    vocabulary = torch.rand(40, DESCRIPTOR) * 0.4
    backbone.load_state_dict({"vocabulary": vocabulary})
    x = torch.rand(5, 3, 64, 64)
    found = backbone(x)["words"]
    for one, row in zip(hog(x.mean(1), 8).numpy(), found, strict=True):
        nearest = ((one[:, None] - vocabulary.numpy()[None]) ** 2).sum(-1).argmin(1)
        expected = np.sqrt(np.bincount(nearest, minlength=40) / len(one))
        assert np.allclose(row, expected, atol=1e-6)
    assert torch.allclose(found.square().sum(1), torch.ones(5))  # L1, then square root
    monkeypatch.setattr(hog_words, "DISTANCES", 2 * 49 * 40)  # two images at a time
    assert torch.equal(backbone(x)["words"], found)
