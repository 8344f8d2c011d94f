import resource
from random import Random

import torch
import torch.nn.functional as F

from ssltransfer.data.transforms import LONGEST_ASPECT, ResizeCenterCrop


def test_resize_center_crop_cuts_a_strip_before_it_enlarges() -> None:
    """The whole strip of 8 x 60000 pixels would have 1.6e9 float32 values after the resize."""
    strip = torch.zeros(3, 8, 60_000, dtype=torch.uint8)
    strip[:, :, 29_900:30_100] = 200
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for image in (strip, strip.transpose(1, 2)):
        view = ResizeCenterCrop(256, 224).apply(image, Random(0))
        assert view.shape == (3, 224, 224) and (view == 200).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_resize_center_crop_keeps_long_images_whole() -> None:
    image = torch.randint(0, 256, (3, 8, 8 * LONGEST_ASPECT), dtype=torch.uint8)
    whole = F.interpolate(image[None], (16, 16 * LONGEST_ASPECT), mode="bilinear", antialias=True)[0]
    left = (whole.shape[-1] - 16) // 2
    assert torch.equal(ResizeCenterCrop(16, 16).apply(image, Random(0)), whole[..., left : left + 16])
