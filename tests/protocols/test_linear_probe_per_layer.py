import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.metrics import read_metrics
from ssltransfer.config.backbones import HogWords, ResNet18, Vgg16
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.protocols import LinearProbePerLayer
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.image_io import read
from ssltransfer.data.transforms import resize_short
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import read_model
from ssltransfer.protocols.layers import default_layers
from ssltransfer.protocols.linear_probe_per_layer import PerLayerProbes, probe_shape, resized
from ssltransfer.stages.evaluate import run
from tests.helpers.protocol_inputs import context_of

SCHEDULE = Schedule(steps=24, batch_size=20, lr=0.05, step_size=16)


def spec(**options: object) -> EvaluationSpec:
    settings = {"max_features": 400, "schedule": SCHEDULE} | options
    return EvaluationSpec(protocol=LinearProbePerLayer(**settings), train="a", test="b", seeds=(0, 1))


def test_probe_shape_matches_papers() -> None:
    caffenet = [(96, 55, 55), (256, 27, 27), (384, 13, 13), (384, 13, 13), (256, 13, 13)]
    alexnet = [(64, 55, 55), (192, 27, 27), (384, 13, 13), (256, 13, 13), (256, 13, 13)]
    assert [probe_shape(shape, 9600)[1] for shape in caffenet] == [10, 6, 5, 5, 6]
    assert [probe_shape(shape, 9600)[1] for shape in alexnet] == [12, 7, 5, 6, 6]
    assert probe_shape((16, 3, 3), 9600) == (16, 3, 3)
    assert probe_shape((4096,), 9600) == (4096,)


def test_default_layers_are_maps() -> None:
    backbones = (
        Vgg16(width_mult=0.03, img_size=32),
        ResNet18(width_mult=0.125, img_size=32),
        HogWords(img_size=32, vocabulary_size=8),
    )
    found = [default_layers(build_backbone(options, include_top=True)) for options in backbones]
    assert found == [backbones[0].base_layers, ("conv1", "block1", "block2", "block3", "block4"), ("words",)]


def test_resized_keeps_statistics(rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.normal(size=(2, 3, 12, 12)).astype(np.float32))
    blocks = x.reshape(2, 3, 4, 3, 4, 3)
    assert torch.allclose(resized(x, (3, 4, 4), "area"), blocks.mean((3, 5)), atol=1e-6)
    assert torch.equal(resized(x, (3, 4, 4), "max"), blocks.amax((3, 5)))
    center = blocks[:, :, :, 1, :, 1]  # the sampling points of bilinear resizing fall on the middle pixels
    assert torch.allclose(resized(x, (3, 4, 4), "bilinear"), center, atol=1e-6)


def test_evaluate_is_reproducible(chain, tmp_path: Path) -> None:
    given = {"model": chain.model, "train": chain.train, "test": chain.test, "threads": 1}
    before = read_model(chain.model).backbone.state_dict()
    run(spec(), output=tmp_path / "all" / "m.json", **given)
    found = read_metrics(tmp_path / "all" / "m.json")
    layers = ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert set(found.values) == {"best", *layers}
    best = found.details["best_layer"]
    assert found.values["best"] == found.values[best]
    assert found.mean(best) == max(found.mean(layer) for layer in layers)
    assert found.seeds == [0, 1]
    figures = {line.title: line.series for line in found.known_details.lines}
    assert set(figures) == {f"{name} {layer}" for name in ("loss", "accuracy") for layer in layers}
    steps, losses = figures["loss conv3"]["training"]
    assert np.mean(losses[-4:]) < np.log(12) - 0.3, "a probe that cannot fit 60 images learns nothing"
    assert len(figures["accuracy conv3"]["validation"][0]) > 3 and steps[-1] == 24
    after = read_model(chain.model).backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)

    run(spec(layers=("conv3",)), output=tmp_path / "one" / "m.json", **given)
    alone = read_metrics(tmp_path / "one" / "m.json")
    assert alone.values["conv3"] == found.values["conv3"]
    same = {line.title: line.series for line in alone.known_details.lines}
    assert same["loss conv3"] == figures["loss conv3"], "a probe depends on the probes of other layers"


def test_evaluate_accepts_vector_layers(chain, tmp_path: Path) -> None:
    given = {"model": chain.full_model, "train": chain.train, "test": chain.test, "threads": 1}
    run(spec(layers=("conv5", "fc6", "fc7")), output=tmp_path / "fc" / "m.json", **given)
    found = read_metrics(tmp_path / "fc" / "m.json")
    assert set(found.values) == {"best", "conv5", "fc6", "fc7"}
    assert found.details["pooled"]["fc6"] == found.details["pooled"]["fc7"] == [512]


def test_task_trains_only_probes(chain) -> None:
    model = read_model(chain.model)
    task = PerLayerProbes(model, ("conv2", "conv5"), LinearProbePerLayer(), 12, 0)
    assert {name.split(".")[0] for name in task.state_dict()} == {"probes"}
    assert sum(p.numel() for p in task.parameters()) == sum(np.prod(shape) * 12 + 12 for shape in task.pooled.values())
    task.train()
    assert not model.backbone.training


@pytest.mark.parametrize("scores", ["softmax", "logits"])
def test_predict_averages_scores_of_ten_crops(chain, tmp_path: Path, scores: Literal["softmax", "logits"]) -> None:
    train, test = read_index(chain.train), read_index(chain.test)
    model = read_model(chain.model)
    options = LinearProbePerLayer(crops=10, crop_scores=scores, max_features=400)
    task = PerLayerProbes(model, ("conv3",), options, 12, 3)
    for parameter in task.probes.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    predicted = task.predict(context_of(options, train, test, tmp_path))[0]
    for sample in range(len(test)):
        image = resize_short(read(test.path(sample)), 72)
        image = image[:, :72, :72]
        corners = [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]
        views = [view[:, top : top + 64, left : left + 64] for view in (image, image.flip(-1)) for top, left in corners]
        with torch.no_grad():
            logits = torch.stack([task.logits(view[None])[0, 0] for view in views])
            mean = (F.softmax(logits, 1) if scores == "softmax" else logits).mean(0)
        assert int(mean.argmax()) == predicted[sample]


def test_evaluate_rejects_unknown_layer(chain, tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="no layer 'fc7'; it has conv1"):
        run(
            spec(layers=("conv1", "fc7")),
            model=chain.model,
            train=chain.train,
            test=chain.test,
            output=tmp_path / "m.json",
            threads=1,
        )


@pytest.mark.parametrize(
    "moments",
    [("seed-0",), pytest.param(("seed-0", "seed-0", "seed-1", "seed-1"), marks=pytest.mark.slow)],
    ids=["once", "often"],
)
def test_killed_run_resumes_to_same_bytes(
    chain, tmp_path: Path, caplog: pytest.LogCaptureFixture, moments: tuple[str, ...]
) -> None:
    undisturbed = tmp_path / "quiet" / "lin" / "m.json"
    killed = tmp_path / "killed" / "lin" / "m.json"
    measurement = spec(layers=("conv1", "conv4"), schedule=Schedule(steps=30, batch_size=20, lr=0.05))
    given = {"model": chain.model, "train": chain.train, "test": chain.test}
    run(measurement, output=undisturbed, threads=1, **given)
    command = [sys.executable, "-m", "ssltransfer.cli", "evaluate", "--spec", measurement.canonical()]
    for key, value in (given | {"output": killed, "threads": 1}).items():
        command += [f"--{key}", str(value)]
    environment = os.environ | {"SSLTRANSFER_CHECKPOINT_STEPS": "2"}
    for wanted in moments:
        begun = time.time()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            saved = killed.parent.glob(f"work/m/*/{wanted}/checkpoint.pt")
            if any(file.stat().st_mtime > begun for file in saved):
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(0.01)
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    assert not killed.exists()
    caplog.set_level("INFO", "ssltransfer")
    run(measurement, output=killed, threads=1, **given)
    assert "resuming from step" in caplog.text
    assert killed.read_bytes() == undisturbed.read_bytes()
    assert json.loads(killed.with_name("m.run.json").read_text())["seconds"] > 0
