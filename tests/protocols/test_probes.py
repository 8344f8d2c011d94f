"""Heads on a frozen layer: what they see, against plain numpy, and whole runs at small size."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.metrics import read_metrics
from ssltransfer.config.backbones import ResNet101V2
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.protocols import FrozenBlock3, Linear, LinearProbe, MlpProbe, Pool
from ssltransfer.config.protocols import ProbeOptions as Options
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.colors import color_jitter
from ssltransfer.data.device_ops import random_crop
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone, rebuild
from ssltransfer.models.weights import read_model
from ssltransfer.protocols.base import Classes
from ssltransfer.protocols.classification_scores import top5_of
from ssltransfer.protocols.probes import ProbeTask
from ssltransfer.stages.evaluate import run
from ssltransfer.training.devices import plan_devices
from tests.helpers.protocol_inputs import context_of, make_model

SHORT = Schedule(steps=4, batch_size=16, lr=0.1)


def probe_of(chain, options: Options) -> ProbeTask:
    return ProbeTask(read_model(chain.model), options, 12, 0, "tiny")


@pytest.mark.parametrize("l2_normalize", [False, True])
def test_standardize_uses_training_images(chain, tmp_path: Path, l2_normalize: bool) -> None:
    options = Linear(layer="conv4", pool=Pool(max=3), l2_normalize=l2_normalize, schedule=SHORT)
    task, train = probe_of(chain, options), read_index(chain.train)
    task.standardize(train, plan_devices(1))
    (batch,) = load_batches(train, task.model.view, sequential_keys(range(len(train)), 60), seed=0)
    maps = task.model.layers_of(batch.images, ["conv4"])["conv4"]
    x = nn.functional.adaptive_max_pool2d(maps, 3).flatten(1).double().numpy()
    if l2_normalize:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert np.allclose(task.mean.numpy(), x.mean(0), atol=1e-5)
    assert np.allclose(task.deviation.numpy(), np.sqrt(x.var(0) + 1e-5), atol=1e-5)
    scores = task.scores(context_of(options, train, train, tmp_path))
    linear = task.classifier[0]
    assert isinstance(linear, nn.Linear)
    weight = linear.weight.detach().double().numpy()
    assert np.allclose(scores, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) @ weight.T, atol=1e-4)


def test_mlp_probe_matches_published_constants() -> None:
    assert (MlpProbe().hidden_dim, MlpProbe().dropout) == (1000, 0.5)
    with pytest.raises(ValueError, match="dropout needs a hidden layer"):
        Linear(dropout=0.5)


def test_vtab_l2_equals_logreg_penalty(chain) -> None:
    """SGD's decay is the gradient of lambda ||W||^2, lambda = 100 / (M C)."""
    task = probe_of(chain, MlpProbe(layer="conv4", pool=Pool(max=3), hidden_dim=8, schedule=SHORT))
    dims = math.prod(task.shape)
    weight = torch.randn(3, 5, requires_grad=True)
    (100 / (dims * 12) * weight.square().sum()).backward()
    assert weight.grad is not None and torch.allclose(weight.grad, task.schedule.weight_decay * weight.detach())
    assert not task.schedule.decay_norm_and_bias
    assert probe_of(chain, LinearProbe(layer="conv4", schedule=SHORT)).schedule == SHORT


def test_task_trains_only_classifier(chain) -> None:
    task = probe_of(chain, MlpProbe(layer="conv4", pool=Pool(max=3), hidden_dim=8, schedule=SHORT))
    (batch,) = load_batches(read_index(chain.train), task.transform, sequential_keys(range(8), 8), seed=0)
    task.train()
    outputs = task(batch, SampleRNG(0, batch.epochs, batch.ids))
    assert float(outputs["loss"].detach()) == pytest.approx(math.log(12), abs=0.2)
    outputs["loss"].backward()
    assert {name for name, p in task.named_parameters() if p.grad is not None} == {
        f"classifier.{layer}.{part}" for layer in (0, 3) for part in ("weight", "bias")
    }
    assert not [name for name in task.state_dict() if name.startswith("model")]


@pytest.mark.parametrize("kind", [Linear, LinearProbe, MlpProbe])
def test_evaluate_runs_with_label_subset(chain, tmp_path: Path, kind: type[Options]) -> None:
    protocol = kind(layer="conv4", pool=Pool(avg=1), label_subset={"per_class": 2}, schedule=SHORT)  # type: ignore[call-arg]
    spec = EvaluationSpec(protocol=protocol, train="a", test="b", seeds=(0, 1))
    output = tmp_path / "head" / "tiny.json"
    run(spec, model=chain.model, train=chain.train, test=chain.test, output=output, threads=1)
    found = read_metrics(output)
    assert len(found.values["accuracy"]) == len(found.values["top5"]) == 2
    assert all(a <= b for a, b in zip(found.values["accuracy"], found.values["top5"], strict=True))
    assert found.details["num_labeled"] == 2 * len(set(read_index(chain.train).labels))
    right = np.trace(np.array(found.details["confusion"])) / found.datasets["test"].samples
    assert found.values["accuracy"][0] == pytest.approx(100 * right, abs=1e-4)


def test_patches_are_pooled_before_their_mean(chain) -> None:
    """Kolesnikov et al. 2019, code: each patch is pooled, then averaged over the nine."""
    task = probe_of(chain, LinearProbe(layer="conv4", pool=Pool(max=2), patches=True, schedule=SHORT))
    assert (task.view.short_side, task.view.size) == (224, 192)  # protocols 4.5, at patches of 64 pixels
    images = torch.randint(0, 256, (2, 3, 192, 192), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    maps = torch.stack(
        [
            task.model.layers_of(images[..., y : y + 64, x : x + 64].contiguous(), ["conv4"])["conv4"]
            for y in (0, 64, 128)
            for x in (0, 64, 128)
        ]
    )
    expected = F.adaptive_max_pool2d(maps.flatten(0, 1), 2).unflatten(0, (9, 2)).mean(0).flatten(1)
    reverse = F.adaptive_max_pool2d(maps.mean(0), 2).flatten(1)
    assert torch.allclose(task.features(images), expected, atol=1e-5)
    assert not torch.allclose(expected, reverse, atol=1e-3)
    assert task.transform == ResizeCenterCrop(224, 224)


def test_label_subset_keeps_number_of_updates() -> None:
    whole = Schedule(epochs=40, batch_size=256, milestones=(15, 30), warmup=2)
    part = whole.scaled_to_full_set(100)
    assert part.total_steps(12_811) == pytest.approx(whole.total_steps(1_281_100), abs=1)
    for step in (0, 100, 75_000, 75_100, 150_200, 200_000):
        assert part.lr_at(step, 12_811) == pytest.approx(whole.lr_at(step, 1_281_100))
    assert SHORT.scaled_to_full_set(100) == SHORT


def test_label_subset_from_file(chain, tmp_path: Path) -> None:
    train = read_index(chain.train)
    first = [int(np.flatnonzero(train.labels == label)[0]) for label in np.unique(train.labels)]
    (tmp_path / "few.txt").write_text("".join(f"{train.paths[place]}\n" for place in first))
    protocol = MlpProbe(
        layer="conv4", pool=Pool(avg=1), hidden_dim=8, schedule=SHORT, label_subset={"file": f"{tmp_path}/few.txt"}
    )
    output = tmp_path / "head" / "tiny.json"
    spec = EvaluationSpec(protocol=protocol, train="a", test="b")
    run(spec, model=chain.model, train=chain.train, test=chain.test, output=output, threads=1)
    assert read_metrics(output).details["num_labeled"] == len(first)
    (tmp_path / "few.txt").write_text("nobody.jpg\n")
    with pytest.raises(ValueError, match="has changed since the configuration was read"):
        run(
            EvaluationSpec.parse(spec.canonical()),
            model=chain.model,
            train=chain.train,
            test=chain.test,
            output=tmp_path / "head" / "other.json",
            threads=1,
        )


def test_top5_equals_sorting(rng: np.random.Generator) -> None:
    scores, truth = rng.normal(size=(50, 9)), rng.integers(0, 9, 50)
    classes = Classes([str(n) for n in range(9)], truth, truth)
    expected = np.mean([label in np.argsort(-row)[:5] for row, label in zip(scores, truth, strict=True)])
    assert top5_of(classes, scores) == pytest.approx(100 * expected)
    assert top5_of(Classes(["a", "b"], truth % 2, truth % 2), scores[:, :2]) == 100


def test_task_rejects_unknown_layer(chain) -> None:
    with pytest.raises(LayerError, match="tiny: no layer 'fc9'; it has conv1"):
        probe_of(chain, Linear(layer="fc9"))


def test_frozen_block3_matches_published_constants() -> None:
    options = FrozenBlock3()
    schedule = options.schedule
    assert (options.layer, options.pool, options.hflip, options.augment) == (
        "block3",
        Pool(max=3),
        False,
        "random-crop",
    )
    assert (schedule.optimizer, schedule.epochs) == ("rmsprop", 20)
    rates = [schedule.lr_at(schedule.total_steps(256 * 20) * epoch // 20, 256 * 20) for epoch in (0, 1, 2, 4, 19)]
    assert rates == pytest.approx([0.01, 0.01, 0.0094, 0.01 * 0.94**2, 0.01 * 0.94**9])
    with torch.device("meta"):
        shape = build_backbone(ResNet101V2(output_stride=16), include_top=True).shapes()["block3"]
    assert shape == (1024, 14, 14) and 1024 * 3 * 3 == 9216


def test_frozen_block3_augments_at_stride_16(chain, tmp_path: Path) -> None:
    manifest = make_model(tmp_path / "m", ResNet101V2(width_mult=0.125, img_size=64))
    spec = EvaluationSpec(protocol=FrozenBlock3(schedule=SHORT), train="a", test="b")
    output = tmp_path / "frozen" / "m.json"
    run(spec, model=manifest, train=chain.train, test=chain.test, output=output, threads=1)
    found = read_metrics(output)
    assert (found.primary_metric, found.details["shape"]) == ("top5", [128, 3, 3])
    train, test = read_index(chain.train), read_index(chain.test)
    common = np.argsort(-np.bincount(train.labels), kind="stable")[:5]
    assert found.chance == pytest.approx(100 * np.isin(test.labels, common).mean(), abs=1e-4)

    options = FrozenBlock3(schedule=SHORT)
    model = read_model(manifest)
    backbone = model.backbone
    model = replace(model, backbone=rebuild(model.backbone, output_stride=options.output_stride))
    task = ProbeTask(model, options, 12, 0, "m")
    assert model.backbone.shapes()["block3"] == (128, 4, 4) and backbone.shapes()["block3"] == (128, 8, 8)
    (batch,) = load_batches(train, task.transform, sequential_keys(range(8), 8), seed=0)
    rng = SampleRNG(3, batch.epochs, batch.ids)
    with torch.no_grad():
        loss = task.train()(batch, rng)["loss"]
        seen = color_jitter(random_crop(batch.images, rng, 64), rng)
        maps = model.layers_of(seen, ["block3"])["block3"]
        logits = task.classifier(nn.functional.adaptive_max_pool2d(maps, 3).flatten(1))
    wanted = nn.functional.cross_entropy(logits, torch.from_numpy(train.labels[:8].astype(np.int64)))
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5)


def test_frozen_block3_of_other_backbones_needs_layer(chain, tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="tiny: no layer 'block3'; it has conv1"):
        probe_of(chain, FrozenBlock3())
    assert probe_of(chain, FrozenBlock3(layer="conv5")).shape == (32, 3, 3)
