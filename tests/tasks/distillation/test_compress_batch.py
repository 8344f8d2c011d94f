"""CompRess without queue, softmax and temperature."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.tasks.distillation.compress_batch import CompressBatchTask, pair_error, similarity_matrix

from .conftest import InputsMaker


def test_pair_error_matches_worked_example() -> None:
    """Cosines of 1 and 2, 1 and 3, 2 and 3: the student's 1, 0, 0, the teacher's 0, 0, 0.6."""
    student = similarity_matrix(torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]]))
    teacher = similarity_matrix(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.6, 0.8]]))
    assert pair_error(student, teacher).item() == pytest.approx((1 + 0 + 0.36) / 3)
    assert pair_error(student[:1, :1], teacher[:1, :1]).item() == 0


def test_compress_batch_compares_cosines_of_all_pairs(make_given: InputsMaker) -> None:
    given = make_given({"name": "compress-batch"})
    task = CompressBatchTask(given).train()
    batch = next(load_batches(given.index, task.transform, sequential_keys(range(16), 16), seed=0))
    torch.manual_seed(0)
    views = task.views(batch, batch.rng(0))
    sides = [x.detach().double().numpy() for x in (task.student_features(views), task.teacher_features(batch, views))]

    def cosine(x: np.ndarray, i: int, j: int) -> float:
        return float(x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]))

    student, teacher = (np.array([cosine(x, i, j) for i, j in permutations(range(16), 2)]) for x in sides)
    expected = np.mean((student - teacher) ** 2)
    found = task(batch, batch.rng(0))["loss"]
    assert found.item() == pytest.approx(expected, rel=1e-4)
    found.backward()
    gradient = next(task.backbone.parameters()).grad
    assert gradient is not None and gradient.abs().max() > 0


def test_compress_batch_chance_is_the_variance_of_the_similarities(make_given: InputsMaker) -> None:
    task = CompressBatchTask(make_given({"name": "compress-batch", "precompute_teacher": True}))
    x = np.stack([task._stores[True].read(slice(i, i + 1))[0] for i in range(48)]).astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert task.chance_loss == pytest.approx((x @ x.T)[np.triu_indices(48, 1)].var(), rel=1e-3)
