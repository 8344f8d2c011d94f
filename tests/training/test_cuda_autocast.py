"""Data types under the rules of autocast on a GPU, which differ from those of a CPU.

torch's fake tensors have a device, a data type and a shape but no values, so the rules apply without a GPU. Tasks whose
shapes depend on values cannot run on them; neither can backward passes. Those run on the pretended GPU.
"""

from __future__ import annotations

import pytest
import torch

from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.models.build import build_backbone
from tests.helpers.fake_cuda import batch_to_cuda, fake_cuda, move, to_cuda
from tests.helpers.pretended_cuda import CUDA
from tests.helpers.small_tasks import TASKS, batch_of, small_task
from tests.models.test_backbones import SMALL

VALUES_DECIDE_SHAPES = {"exemplar", "exemplar-batch", "exemplar-patches", "rotation-inception"}
VALUES_DECIDE_SHAPES |= {"drop", "project", "residual", "harmonized"}
HALVES = [torch.bfloat16, torch.float16]


def test_rules_are_those_of_a_gpu() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.ones(2, 2, dtype=torch.bfloat16).pow(2).dtype == torch.bfloat16
    with fake_cuda(torch.bfloat16):
        ones = torch.ones(2, 2, device=CUDA)
        assert (ones @ ones).dtype == torch.bfloat16
        assert (ones @ ones).pow(2).dtype == torch.float32
        with pytest.raises(RuntimeError, match="device"):
            ones @ torch.ones(2, 2)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", [name for name in TASKS if name not in VALUES_DECIDE_SHAPES])
def test_loss_of_task_is_float32(name: str, dtype: torch.dtype, objects: Index) -> None:
    task = small_task(name)
    batch = batch_of(task, objects)
    with fake_cuda(dtype) as mode:
        move(task)
        batch = batch_to_cuda(mode, batch)
        outputs = task(batch, batch.rng(0))
    assert {(value.dtype, value.device) for value in outputs.values()} == {(torch.float32, CUDA)}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("options", SMALL, ids=lambda options: options.slug)
def test_layers_of_network_are_in_half_precision(options: BackboneOptions, dtype: torch.dtype) -> None:
    network = build_backbone(options, include_top=True)
    with fake_cuda(dtype):
        move(network)
        layers = network(to_cuda(torch.zeros(2, 3, options.img_size, options.img_size)), network.layers)
    # The streams of a RevNet are in float32, so that the same value is subtracted that was added.
    exact = {"block1", "block2", "block3", "block4", "pool"} if options.name == "revnet50" else set()
    assert {name for name, value in layers.items() if value.dtype != dtype} == exact
    assert {(value.dtype, value.device) for name, value in layers.items() if name in exact} <= {(torch.float32, CUDA)}
