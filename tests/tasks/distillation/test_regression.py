"""Regression of a teacher's features, plain and with both sides standardized."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.tasks.distillation.regression import RegressionTask, standardized

from .conftest import InputsMaker


def test_regression_divides_by_the_variance(make_given: InputsMaker) -> None:
    """The default is the paper's loss relative to its chance level, so that it is 1 at chance for any teacher."""
    given, plain = (make_given({"name": "regression", "divide_by_variance": divided}) for divided in (True, False))
    tasks = RegressionTask(given).eval(), RegressionTask(plain).eval()
    batch = next(load_batches(given.index, tasks[0].transform, sequential_keys(range(16), 16), seed=0))
    with torch.no_grad():
        found, wanted = (task(batch, batch.rng(0)) for task in tasks)
    assert tasks[0].chance_loss == 1.0
    assert found["loss"].item() == pytest.approx(wanted["loss"].item() / tasks[1].chance_loss, rel=1e-5)
    assert found["explained"].item() == pytest.approx(wanted["explained"].item(), rel=1e-5)


@pytest.mark.parametrize("bn", [False, True])
def test_regression_loss_is_the_squared_error(bn: bool, make_given: InputsMaker) -> None:
    given = make_given({"name": "regression", "bn": bn, "divide_by_variance": False})
    task = RegressionTask(given).eval()
    batch = next(load_batches(given.index, task.transform, sequential_keys(range(16), 16), seed=0))
    with torch.no_grad():
        views = task.views(batch, batch.rng(0))
        sides = [
            x.double().numpy() for x in (task.head(task.student_features(views)), task.teacher_features(batch, views))
        ]
        found = task(batch, batch.rng(0))
    spread = sides[1].var(0).mean()
    plain = np.mean((sides[0] - sides[1]) ** 2)
    if bn:
        sides = [(x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) for x in sides]
        assert found["loss"].item() == pytest.approx(np.mean((sides[0] - sides[1]) ** 2), rel=1e-3)
        assert task.chance_loss == 2.0
    else:
        assert found["loss"].item() == pytest.approx(plain, rel=1e-4)
        assert found["explained"].item() == pytest.approx(1 - plain / spread, rel=1e-3)
        # All 48 images: what their mean would miss by, with one degree of freedom less.
        assert 0.3 * spread < task.chance_loss < 3 * spread


def test_standardized_undoes_affine_changes() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 5) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    scale, shift = torch.rand(5) + 0.5, torch.randn(5) * 10
    assert torch.allclose(standardized(x), standardized(x * scale + shift), atol=1e-3)
    found = standardized(x)
    assert torch.allclose(found.mean(0), torch.zeros(5), atol=1e-5)
    assert torch.allclose(found.var(0, correction=0), torch.ones(5), atol=1e-3)


def test_standardized_matches_worked_example() -> None:
    """(1, 3) and (5, 1) become (-1, 1) and (1, -1): each differs by 2, so that Reg-BN's loss is 4."""
    student, teacher = (standardized(torch.tensor([[a], [b]])) for a, b in ((1.0, 3.0), (5.0, 1.0)))
    assert student.flatten().tolist() == pytest.approx([-1, 1], abs=1e-4)
    assert (student - teacher).square().mean().item() == pytest.approx(4, abs=1e-3)
