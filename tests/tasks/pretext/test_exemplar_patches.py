import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage

from ssltransfer.config.backbones import CaffeNet, ResNet101V2
from ssltransfer.config.tasks import ExemplarPatches
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.models.normalize import normalize
from ssltransfer.tasks.pretext.exemplar_patches import ExemplarPatchesTask, triplet_loss
from ssltransfer.training.task import TrainingError

SMALL = {"resize": 64, "patch": 32, "head": {"head_dims": (16, 8), "bottleneck_dim": 8}}
BACKBONE = CaffeNet(width_mult=0.125, img_size=48, stem_stride=2)
STILL = {"translation": 0, "scale": (1, 1), "rotation": 0}
COLORFAST = {"hue": 0, "saturation": (1, 1), "brightness": (1, 1), "contrast": (1, 1)}


def task(**more: object) -> ExemplarPatchesTask:
    return ExemplarPatchesTask(ExemplarPatches.model_validate(SMALL | more), BACKBONE, 0)


def images(n: int, side: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def rng(n: int) -> SampleRNG:
    return SampleRNG(0, 0, torch.arange(n))


def test_exemplar_patches_has_the_published_sizes():
    options = ExemplarPatches()
    assert (options.resize, options.patch, options.margin, options.head.head_dims) == (256, 96, 0.5, (1024, 512))
    with torch.device("meta"):
        assert ExemplarPatchesTask(options, ResNet101V2(), 0).vectors.features == 3 * 3 * 512


def test_affine_matrices_fill_their_ranges():
    network = task()
    places = network.affine_matrices(images(3000), rng(3000))
    scale = places[..., :2].det().sqrt()
    angle = torch.rad2deg(torch.atan2(places[..., 1, 0], places[..., 0, 0]))
    centers = places[..., 2]
    between = (centers[:, 0] - centers[:, 1]).abs()  # two shifts of up to a fifth of 32
    for values, low, high in ((scale, 0.7, 1.4), (angle, -20, 20), (between, 0, 12.8), (centers, 9.1, 53.9)):
        assert low - 1e-3 <= values.min() < low + 0.03 * (high - low)
        assert high + 1e-3 >= values.max() > high - 0.1 * (high - low)
    assert scale.log().mean() == pytest.approx((math.log(0.7) + math.log(1.4)) / 2, abs=0.01)
    assert not torch.allclose(scale[:, 0], scale[:, 1])


def test_views_without_distortion_are_crops():
    network = task(**STILL, **COLORFAST)
    source = images(4)
    places = network.affine_matrices(source, rng(4))
    places[..., 2] = places[..., 2].floor() + 0.5  # whole pixels: a patch of even side has its center between two
    seen = network.views(source, places)
    for row in range(4):
        left, top = (places[row, 0, :, 2] - 15.5).int().tolist()
        assert torch.allclose(seen[row, 0], source[row, :, top : top + 32, left : left + 32].float(), atol=1e-2)
        assert torch.equal(seen[row, 0], seen[row, 1])


def test_views_match_scipy():
    """Each pixel of a patch by scipy's spline of order 1, reflected at the edges."""
    network = task()
    source = images(3)
    places = network.affine_matrices(source, rng(3))
    seen = network.views(source, places)
    offset = np.arange(32) - 15.5
    y, x = np.meshgrid(offset, offset, indexing="ij")
    for row in range(3):
        for view in range(2):
            m = places[row, view].double().numpy()
            at = [m[1, 0] * x + m[1, 1] * y + m[1, 2], m[0, 0] * x + m[0, 1] * y + m[0, 2]]
            for channel in range(3):
                plain = source[row, channel].double().numpy()
                expected = ndimage.map_coordinates(plain, at, order=1, mode="reflect")  # type: ignore[attr-defined]
                assert np.abs(seen[row, view, channel].numpy() - expected).max() < 0.1


def test_exemplar_patches_distorts_each_view():
    network = task(**STILL)
    source = images(4)
    inputs, places = network.inputs(source, rng(4))
    assert torch.equal(places[:, 0], places[:, 1])
    assert not torch.allclose(inputs[:, 0], inputs[:, 1], atol=0.1)
    plain = task(**STILL, **COLORFAST)
    inputs, places = plain.inputs(source, rng(4))
    expected = normalize(plain.views(source, places).flatten(0, 1), "imagenet").unflatten(0, (4, 2))
    assert torch.allclose(inputs, expected, atol=1e-4) and plain.normalization == "imagenet"


def test_triplet_loss_of_two_triplets():
    """Distances of 1 to the other view and 2 to the other image cost nothing; .2 and 0 cost .2 - 0 + .5 = .7."""
    one = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    two = torch.tensor([[0.0, 1.0], [3.0, 4.0]])
    three = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    loss, accuracy = triplet_loss(one, two, three, 0.5)
    assert loss.item() == pytest.approx((0 + 0.7) / 2) and accuracy.item() == 0.5


def test_exemplar_patches_loss_matches_numpy():
    network = task().eval()
    source = images(6)
    batch = Batch(source, torch.arange(6), torch.zeros(6, dtype=torch.int64))
    with torch.no_grad():
        found = network(batch, batch.rng(1))
        views, _ = network.inputs(source, batch.rng(1))
        one, two = (network.vectors(views[:, k]).double().numpy() for k in (0, 1))

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return 1 - float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    pairs = [(distance(one[i], two[i]), distance(one[i], one[j])) for i, j in enumerate((1, 0, 3, 2, 5, 4))]
    assert float(found["loss"]) == pytest.approx(np.mean([max(a - b + 0.5, 0) for a, b in pairs]), rel=1e-4)
    assert float(found["accuracy"]) == pytest.approx(np.mean([a < b for a, b in pairs]))


def test_exemplar_patches_refuses_odd_batches():
    source = images(3)
    with pytest.raises(TrainingError, match="Exemplar on patches takes images in pairs"):
        task()(Batch(source, torch.arange(3), torch.zeros(3, dtype=torch.int64)), rng(3))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"patch": 80}, "larger than the image of 64"),
        ({"scale": (1.4, 0.7)}, "two positive numbers in ascending order"),
        ({"contrast": (0, 2)}, "contrast must be two positive numbers"),
    ],
)
def test_exemplar_patches_options_refuse_errors(more: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        task(**more)
