"""Frozen below, afresh above: what learns, what stays, and whole runs at small size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.metrics import read_metrics
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.protocols import FinetuneFromLayer
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.image_io import read
from ssltransfer.data.transforms import resize_short
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.weights import read_model
from ssltransfer.protocols.finetune_from_layer import PartialFinetuneTask
from ssltransfer.stages.evaluate import run
from tests.helpers.protocol_inputs import context_of

SHORT = Schedule(steps=3, batch_size=12, lr=0.01)


def retrained(chain, layer: str, seed: int = 0) -> PartialFinetuneTask:
    return PartialFinetuneTask(read_model(chain.model), layer, FinetuneFromLayer(dropout=0.0), 12, seed)


@pytest.mark.parametrize(("layer", "frozen"), [("conv1", 1), ("conv3", 3), ("conv5", 5)])
def test_task_trains_layers_after_frozen_one(chain, layer: str, frozen: int) -> None:
    task = retrained(chain, layer)
    learning = {name for name, parameter in task.named_parameters() if parameter.requires_grad}
    expected = [f"backbone.conv{number}" for number in range(frozen + 1, 6)] + [
        "backbone.fc6",
        "backbone.fc7",
        "head.2",
    ]
    assert learning == {f"{name}.{part}" for name in expected for part in ("weight", "bias")}


def test_task_keeps_lower_and_resets_upper_layers(chain) -> None:
    task = retrained(chain, "conv3").eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    lower = task.model.layers_of(images, ["conv3"])["conv3"]
    x = lower
    for layer in ("conv4", "conv5", "fc6", "fc7"):
        x = task.backbone.forward_layer(layer, x.clone())
    assert torch.allclose(task.logits(images), task.head(x), atol=1e-6)
    assert torch.equal(read_model(chain.model).layers_of(images, ["conv3"])["conv3"], lower)
    own = dict(task.model.backbone.named_parameters())["conv4.weight"]
    assert not torch.equal(own, dict(task.backbone.named_parameters())["conv4.weight"])


def test_task_initialization_depends_on_seed_and_layer(chain) -> None:
    weights = [
        retrained(chain, layer, seed).backbone.state_dict()["fc6.weight"]
        for layer, seed in (("conv3", 0), ("conv3", 0), ("conv3", 1), ("conv2", 0))
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[3])


def test_predict_averages_ten_crops(chain, tmp_path: Path) -> None:
    task, test = retrained(chain, "conv4"), read_index(chain.test)
    torch.nn.init.normal_(task.head[2].weight)
    found = task.predict(context_of(FinetuneFromLayer(), chain.train, test, tmp_path))
    for sample in range(0, len(test), 7):
        square = torch.stack([resize_short(read(test.path(sample)), 72)[:, :72, :72]])
        crops = [square[..., y : y + 64, x : x + 64] for y, x in ((0, 0), (0, 8), (8, 0), (8, 8), (4, 4))]
        with torch.inference_mode():
            shares = [task.logits(view).softmax(1) for crop in crops for view in (crop, crop.flip(-1))]
        assert found[sample] == torch.stack(shares).mean(0).argmax()


def test_evaluate_is_reproducible(chain, tmp_path: Path) -> None:
    protocol = FinetuneFromLayer(layers=("conv2", "conv5"), schedule=SHORT)
    spec = EvaluationSpec(protocol=protocol, train="a", test="b", seeds=(0, 1))
    found = []
    for name in ("one", "two"):
        output = tmp_path / name / "tiny.json"
        run(spec, model=chain.model, train=chain.train, test=chain.test, output=output, threads=1)
        found.append(read_metrics(output))
    assert found[0].values == found[1].values
    assert set(found[0].values) == {"best", "conv2", "conv5"}
    assert found[0].values["best"] == found[0].values[found[0].details["best_layer"]]
    assert len(found[0].details["lines"]) == 2
    assert np.isfinite(found[0].mean())


def test_evaluate_rejects_unknown_layer(chain, tmp_path: Path) -> None:
    spec = EvaluationSpec(protocol=FinetuneFromLayer(layers=("conv9",), schedule=SHORT), train="a", test="b")
    with pytest.raises(LayerError, match="no layer 'conv9'; it has conv1"):
        run(spec, model=chain.model, train=chain.train, test=chain.test, output=tmp_path / "a" / "m.json", threads=1)
