import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import color

from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import BackboneOptions, CaffeNet, ResNet18, ResNet101V2, Vgg16
from ssltransfer.config.schedule import Schedule
from ssltransfer.config.tasks import Colorization
from ssltransfer.data.ab_bins import BINS, balance, decode
from ssltransfer.data.lab import rgb_to_lab
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.data.rng import SampleRNG
from ssltransfer.models.normalize import normalize
from ssltransfer.tasks.pretext.colorization import ColorizationTask
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import fit
from ssltransfer.training.task import TrainingError

CPU = Devices(torch.device("cpu"), 0)
BACKBONE = CaffeNet(width_mult=0.125, img_size=48, stem_stride=2)


def task(backbone: BackboneOptions = BACKBONE, **more: object) -> ColorizationTask:
    return ColorizationTask(Colorization.model_validate({"resize": 48, "hidden_dim": 16} | more), backbone, 0)


def batch_of(images: torch.Tensor) -> Batch:
    return Batch(images, torch.arange(len(images)), torch.zeros(len(images), dtype=torch.int64))


def images(n: int, side: int = 48) -> torch.Tensor:
    """Soft fields of color, so that a place's mean is its color."""
    noise = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(n)) * 255
    return F.interpolate(noise, (side, side), mode="bilinear").to(torch.uint8)


def test_colorization_has_the_published_sizes():
    """Doersch & Zisserman 2017: a map of 32x32x1024 for 256 pixels, and a head of about 35M parameters."""
    with torch.device("meta"):
        network = ColorizationTask(Colorization(), ResNet101V2(), 0)
        assert network.map_size == (32, 32)
        assert network.head(torch.empty(1, 1024, 32, 32)).shape == (1, 313, 32, 32)
    convolutions = [part for part in network.head if isinstance(part, torch.nn.Conv2d)]
    assert [(part.in_channels, part.out_channels, part.kernel_size) for part in convolutions] == [
        (1024, 4096, (2, 2)),
        (4096, 4096, (1, 1)),
        (4096, 313, (1, 1)),
    ]
    assert 34.5e6 < sum(p.numel() for p in network.head.parameters()) < 35.5e6


@pytest.mark.parametrize(
    "backbone",
    [
        ResNet18(width_mult=0.125, img_size=64),
        Vgg16(width_mult=0.125, img_size=64),
        ResNet101V2(width_mult=0.125, img_size=64),
    ],
    ids=lambda backbone: backbone.name,
)
def test_colorization_head_fits_any_map(backbone: BackboneOptions):
    network = task(backbone, resize=64)
    batch = batch_of(images(2, 64))
    assert network(batch, batch.rng(0))["loss"].item() == pytest.approx(math.log(313), abs=0.1)


def test_colorization_input_is_lightness():
    network = task().eval()
    source = images(3)
    inputs, _ = network.inputs(source, SampleRNG(0, 0, torch.arange(3)))
    assert torch.equal(inputs, normalize(source, network.normalization))
    expected = color.rgb2lab(source.permute(0, 2, 3, 1).numpy())[..., 0] / 50 - 1
    assert np.abs(inputs[:, 0].numpy() - expected).max() < 1e-4
    assert torch.equal(inputs[:, 0], inputs[:, 1]) and torch.equal(inputs[:, 0], inputs[:, 2])


def test_colorization_targets_are_colors_of_locations():
    network = task()
    source = images(4)
    code, colored = network.targets(rgb_to_lab(source))
    height, width = network.map_size
    assert code.shape == (4, 313, height, width) and colored.all()
    found = decode(code.log(), temperature=1.0).permute(0, 2, 3, 1).numpy()
    ab = color.rgb2lab(source.permute(0, 2, 3, 1).numpy())[..., 1:]
    bounds = [[(48 * i // n, -(-48 * (i + 1) // n)) for i in range(n)] for n in (height, width)]
    for y, (top, bottom) in enumerate(bounds[0]):
        for x, (left, right) in enumerate(bounds[1]):
            assert np.abs(found[:, y, x] - ab[:, top:bottom, left:right].mean((1, 2))).max() < 2.5


def test_colorization_targets_of_one_color():
    """Columns of (a, b) = (0, 0) and (6, 8) have the mean (3, 4); its four nearest bins are 5 to 9.2 away."""
    network = task(num_soft_bins=4)
    lab = torch.full((1, 3, 48, 48), 50.0)
    lab[:, 1:, :, 0::2] = 0
    lab[:, 1, :, 1::2], lab[:, 2, :, 1::2] = 6, 8
    code, colored = network.targets(lab)
    squares = {(0, 0): 9 + 16, (0, 10): 9 + 36, (10, 0): 49 + 16, (10, 10): 49 + 36}
    weights = {ab: math.exp(-square / (2 * 5**2)) for ab, square in squares.items()}
    for number, ab in enumerate(BINS):
        share = weights.get(ab, 0) / sum(weights.values())  # .413, .277, .186 and .124
        assert (
            code[0, number].tolist() == [[pytest.approx(share, abs=1e-6)] * network.map_size[1]] * network.map_size[0]
        )
    assert colored.tolist() == [True]


def test_colorization_flips_in_training_alone():
    network = task()
    source, rng = images(30), SampleRNG(0, 0, torch.arange(30))
    _, lab = network.inputs(source, rng)
    straight = (lab == rgb_to_lab(source)).flatten(1).all(1)
    mirrored = (lab == rgb_to_lab(source.flip(-1))).flatten(1).all(1)
    assert (straight | mirrored).all() and 5 < straight.sum() < 25
    assert torch.equal(network.eval().inputs(source, rng)[1], rgb_to_lab(source))


def test_colorization_refuses_gray_images_alone(objects: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "ssltransfer")
    for number in range(4):
        drawn = images(4)[number] if number else images(4)[number, :1].expand(3, -1, -1)
        Image.fromarray(drawn.permute(1, 2, 0).numpy()).save(tmp_path / f"{number}.png")
    paths = [f"{number}.png" for number in range(4)]
    index = replace(objects.subset(np.arange(4)), root=tmp_path, paths=paths, sizes=np.full((4, 2), 48))
    task().on_train_start(index, CPU)
    assert "1 of 4 images are gray and teach nothing" in caplog.text
    with pytest.raises(TrainingError, match=r"None of 1 images has a color .* nothing to learn"):
        task().on_train_start(index.subset(np.arange(1)), CPU)


def test_colorization_gray_images_have_zero_loss():
    network = task()
    source = images(4)
    source[2:] = source[2:, :1]
    everything = network(batch_of(source), SampleRNG(0, 0, torch.arange(4)))["loss"]
    colored = network(batch_of(source[:2]), SampleRNG(0, 0, torch.arange(2)))["loss"]
    assert everything.item() == pytest.approx(colored.item() / 2, rel=1e-5)
    gray = network(batch_of(source[2:]), SampleRNG(0, 0, torch.arange(2, 4)))["loss"]
    gray.backward()
    assert gray.item() == 0
    assert all(torch.isfinite(p.grad).all() and not p.grad.any() for p in network.parameters() if p.grad is not None)
    # A little color in one pixel counts.
    source[3, :, 0, 0] = torch.tensor([200, 30, 30])
    assert network.targets(rgb_to_lab(source))[1].tolist() == [True, True, False, True]


def test_colorization_loss_matches_numpy():
    """Place by place in float64: cross-entropy with the code, times the weight of its likeliest bin."""
    network = task().eval()
    network.weights = torch.rand(313, generator=torch.Generator().manual_seed(0)) + 0.5
    source = images(2)
    lab = rgb_to_lab(source)
    with torch.no_grad():
        logits = (
            network.head(network.backbone(normalize(source, network.normalization))[network.layer]).double().numpy()
        )
        found = float(network(batch_of(source), SampleRNG(0, 0, torch.arange(2)))["loss"])
    code = network.targets(lab)[0].double().numpy()
    losses = []
    for row in range(2):
        for y, x in np.ndindex(*network.map_size):
            scores = logits[row, :, y, x]
            shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            wanted = code[row, :, y, x]
            losses.append(-(wanted * np.log(shares)).sum() * float(network.weights[int(wanted.argmax())]))
    assert found == pytest.approx(np.mean(losses), rel=1e-5)


def test_colorization_prior_is_that_of_training_images(objects: Index):
    network = task()
    network.on_train_start(objects, CPU)
    (batch,) = load_batches(objects, network.transform, sequential_keys(range(48), 48), seed=0)
    code, colored = network.targets(rgb_to_lab(batch.images))
    prior = code[colored].double().sum((0, 2, 3))
    assert torch.allclose(network.weights, balance(prior), rtol=1e-5)
    assert float((prior / prior.sum() * network.weights).sum()) == pytest.approx(1, rel=1e-4)
    assert network.weights.max() / network.weights.min() > 5
    common, rare = prior.argmax(), (prior + (prior == 0) * prior.sum()).argmin()
    assert network.weights[common] < 1 < network.weights[rare]
    some = task(prior_images=10)
    some.on_train_start(objects, CPU)  # every fifth
    assert not torch.equal(some.weights, network.weights)
    flat = task(prior="uniform")
    flat.on_train_start(objects, CPU)
    assert torch.equal(flat.weights, torch.ones(313))
    assert flat.chance_loss == pytest.approx(
        float(-torch.xlogy(prior, prior / prior.sum()).sum() / prior.sum()), rel=1e-5
    )


def test_colorization_chance_loss_is_the_best_constant(objects: Index):
    """Found by descent on the loss itself; it is what a network learns that sees nothing."""
    network = task().eval()
    assert network.chance_loss == pytest.approx(math.log(313))
    network.on_train_start(objects, CPU)
    (batch,) = load_batches(objects, network.transform, sequential_keys(range(48), 48), seed=0)
    last = network.head[-1]
    torch.nn.init.zeros_(last.get_parameter("weight"))
    code, colored = network.targets(rgb_to_lab(batch.images))
    optimizer = torch.optim.LBFGS([answer := torch.zeros(313, requires_grad=True)], max_iter=100)

    def loss() -> torch.Tensor:
        weight = network.weights[code.argmax(1)] * colored[:, None, None]
        logits = answer.view(1, -1, 1, 1).expand_as(code)
        return (F.cross_entropy(logits, code, reduction="none") * weight).mean()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss().backward()
        return loss()

    optimizer.step(closure)
    assert network.chance_loss == pytest.approx(loss().item(), abs=0.02) and network.chance_loss <= loss().item() + 1e-5
    last.get_parameter("bias").data.copy_(answer.detach())
    assert network(batch, batch.rng(0))["loss"].item() == pytest.approx(loss().item(), rel=1e-4)
    assert network.chance_loss < math.log(313) - 1


def test_colorization_resumes_with_the_prior_of_the_checkpoint(
    objects: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_STEPS", "2")
    schedule = Schedule(steps=5, batch_size=8, lr=0.01)

    def run(network: ColorizationTask, folder: Path) -> dict[str, torch.Tensor]:
        fit(network, objects, schedule, seed=0, folder=folder, devices=CPU)
        return network.state_dict()

    whole = run(task(), tmp_path / "whole")
    cut = task()
    monkeypatch.setattr(cut, "after_step", lambda step: 1 // (3 - step))
    with pytest.raises(ZeroDivisionError):
        run(cut, tmp_path / "cut")
    resumed = task()
    monkeypatch.setattr(resumed, "on_train_start", None)  # would not be forgiven
    again = run(resumed, tmp_path / "cut")
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
    assert not torch.equal(whole["weights"], torch.ones(313))
