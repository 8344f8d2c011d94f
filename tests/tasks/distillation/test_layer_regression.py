"""Regression of a teacher's maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ssltransfer.config.backbones import ResNet18
from ssltransfer.config.methods import LayerRegression
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.tasks.distillation.layer_regression import LayerRegressionTask, match_spatial_size

from .conftest import InputsMaker

METHOD = {"name": "layer-regression", "layers": ["block2", "block3"], "augment": "none"}


def test_layer_regression_loss_is_zero_for_the_teacher_itself(make_given: InputsMaker) -> None:
    given = make_given(METHOD, ResNet18(width_mult=0.125, img_size=64))
    task = LayerRegressionTask(given)
    assert task._online is not None
    task.backbone.load_state_dict(task._online.model.backbone.state_dict())
    task.normalization = task._online.model.normalization
    task.eval()
    batch = next(load_batches(given.index, task.transform, sequential_keys(range(48), 48), seed=0))
    assert task(batch, batch.rng(0))["loss"].item() == pytest.approx(0.0, abs=1e-9)
    maps = task._online.maps(batch.images, ["block2", "block3"])
    plain = sum(np.mean(value.numpy().var((0, 2, 3))) for value in maps.values())
    assert task.chance_loss == pytest.approx(plain, rel=1e-3)


def test_layer_regression_maps_channels_and_sizes(make_given: InputsMaker) -> None:
    method = {"name": "layer-regression", "layers": ["conv4"], "teacher_layers": ["block3"]}
    given = make_given(method)
    task = LayerRegressionTask(given).train()
    assert task.heads[0].weight.shape[:2] == (32, 48)
    batch = next(load_batches(given.index, task.transform, sequential_keys(range(4), 4), seed=0))
    found = task(batch, batch.rng(0))
    assert found["loss"].item() == pytest.approx(found["conv4_loss"].item())
    found["loss"].backward()
    assert task.backbone.conv1.weight.grad.abs().max() > 0


def test_match_spatial_size_averages_the_larger_map() -> None:
    large, small = torch.arange(16.0).view(1, 1, 4, 4), torch.zeros(1, 1, 2, 2)
    mine, theirs = match_spatial_size(large, small)
    assert mine.flatten().tolist() == [2.5, 4.5, 10.5, 12.5] and torch.equal(theirs, small)


@pytest.mark.parametrize(
    "wrong",
    [{"teacher_layers": ["conv4"]}, {"precompute_teacher": True}, {"layer": "conv4"}, {"teacher_pool": {"max": 2}}],
)
def test_layer_regression_options_refuse_unused_keys(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        LayerRegression(teacher="t", **wrong)
