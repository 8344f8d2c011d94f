"""Contrastive representation distillation: estimation, constants and memories."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.tasks.distillation.crd import CrdTask, contrast

from .conftest import InputsMaker

CRD = {"name": "crd", "embed_dim": 8, "num_negatives": 20}


def test_contrast_matches_definition() -> None:
    """D(p) = p / (p + m / N), one image and one negative at a time."""
    torch.manual_seed(0)
    probabilities = torch.rand(3, 6, dtype=torch.float64).requires_grad_()
    again = probabilities.detach().clone().requires_grad_()
    m, n = 5, 40
    total = torch.zeros((), dtype=torch.float64)
    for row in again:
        total = total - torch.log(row[0] / (row[0] + m / n))
        for p in row[1:]:
            total = total - torch.log(1 - p / (p + m / n))
    found = contrast(probabilities, n)
    assert found.item() == pytest.approx((total / 3).item(), rel=1e-5)
    found.backward()
    (total / 3).backward()
    assert torch.allclose(probabilities.grad, again.grad, rtol=1e-4)  # type: ignore[arg-type]


def test_crd_chance_loss_is_that_of_equal_probabilities() -> None:
    n, m = 1000, 20
    equal = torch.full((4, 1 + m), 1 / n, dtype=torch.float64)
    assert 2 * contrast(equal, n).item() == pytest.approx(2 * (math.log(1 + m) + m * math.log(1 + 1 / m)), rel=1e-3)


def test_crd_first_batch_sets_normalization_constants(make_given: InputsMaker) -> None:
    given = make_given({**CRD, "embed_dim": 128})
    task = CrdTask(given).train()
    batches = [
        next(load_batches(given.index, task.transform, sequential_keys(range(a, a + 16), 16), seed=0)) for a in (0, 16)
    ]
    first = task(batches[0], batches[0].rng(0))["loss"].item()
    constants = task.constants.clone()  # type: ignore[operator]
    assert (constants > 0).all() and first == pytest.approx(task.chance_loss, rel=0.25)
    task.after_step(0)
    task(batches[1], batches[1].rng(0))
    assert torch.equal(task.constants, constants)  # type: ignore[arg-type]


def test_crd_memory_banks_follow_the_embeddings(make_given: InputsMaker) -> None:
    given = make_given({**CRD, "augment": "none", "momentum": 0.5})
    task = CrdTask(given).train()
    batch = next(load_batches(given.index, task.transform, sequential_keys(range(8), 8), seed=0))
    before = task.student_memory.clone()  # type: ignore[operator]
    for part in batch.split(4):
        task(part, part.rng(0))
    assert torch.equal(task.student_memory, before)  # type: ignore[arg-type]
    with torch.no_grad():
        said = F.normalize(task.student_head(task.student_features(task.views(batch, batch.rng(0)))))
    task.after_step(0)
    expected = before.clone()
    expected[:8] = F.normalize(0.5 * before[:8] + 0.5 * said)
    assert torch.allclose(task.student_memory, expected, atol=1e-5)  # type: ignore[arg-type]


def test_crd_never_draws_the_image_itself(make_given: InputsMaker) -> None:
    given = make_given({**CRD, "num_negatives": 47, "augment": "none"})
    task = CrdTask(given).train()
    batch = next(load_batches(given.index, task.transform, sequential_keys(range(1), 1), seed=0))
    drawn: set[int] = set()
    for epoch in range(20):
        rng = type(batch)(batch.images, batch.ids, batch.epochs + epoch).rng(0)
        negatives = task.negatives(batch.ids, rng, 48)
        drawn |= set(negatives[0].tolist())
    assert drawn == set(range(1, 48))


def test_crd_validation_uses_no_memory(make_given: InputsMaker) -> None:
    """Their ids are those of another index: the positive is what the other side says now."""
    given = make_given(CRD)
    task = CrdTask(given).eval()
    batch = next(load_batches(given.index, task.val_transform, sequential_keys(range(8), 8), seed=0))
    memory = task.student_memory.clone()  # type: ignore[operator]
    shifted = type(batch)(batch.images, batch.ids + 10_000, batch.epochs)
    assert torch.isfinite(task(shifted, shifted.rng(0))["loss"])
    assert torch.equal(task.student_memory, memory) and not task._pending and not task.constants.any()  # type: ignore[arg-type, operator]


def test_contrast_matches_worked_example() -> None:
    """m / n = 2 / 4 = 1/2: D(1/2) = 1/2 for the positive; 1 - D is 1/2 and 1/4 for the negatives 1/2 and 3/2."""
    loss = contrast(torch.tensor([[0.5, 0.5, 1.5]], dtype=torch.float64), 4)
    assert loss.item() == pytest.approx(math.log(2) + math.log(2) + math.log(4), rel=1e-5)
