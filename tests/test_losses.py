"""Losses as functions, against plain arithmetic and against the tasks that train with them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer import losses

FUNCTIONS = {name: getattr(losses, name) for name in losses.__all__}


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def arguments(name: str) -> tuple[Tensor, ...]:
    """Features of 6 images; maps for attention, queues of 9 images for CompRess."""
    if name == "attention_transfer":
        return features(0, 6, 5, 4, 4), features(1, 6, 5, 4, 4)
    queues = (features(2, 9, 8), features(3, 9, 8)) if name == "compress" else ()
    return features(0, 6, 8), features(1, 6, 8), *queues


def test_compress_is_a_divergence_of_softmaxes() -> None:
    student, teacher, student_queue, teacher_queue = (features(i, *shape) for i, shape in
        enumerate([(5, 4), (5, 7), (9, 4), (9, 7)]))  # fmt: skip
    expected = []
    for i in range(5):
        p, q = (
            torch.softmax(F.cosine_similarity(x[i][None], queue) / t, 0)
            for x, queue, t in ((teacher, teacher_queue, 0.1), (student, student_queue, 0.3))
        )
        expected.append((p * (p.log() - q.log())).sum())
    found = losses.compress(student, teacher, student_queue, teacher_queue, temperature=0.1, student_temperature=0.3)
    assert found.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)


def test_compress_batch_worked_example() -> None:
    student, teacher = torch.tensor([[1.0, 0], [0, 2]]), torch.tensor([[3.0, 0, 0], [3, 0, 0]])
    assert losses.compress_batch(student, teacher).item() == pytest.approx(1.0)  # cosines 0 and 1


def test_feature_distillation_of_maps_is_that_of_their_locations() -> None:
    student, teacher = features(0, 3, 6, 2, 2), features(1, 3, 6, 2, 2)
    each = [losses.feature_distillation(student[..., i, j], teacher[..., i, j]) for i in (0, 1) for j in (0, 1)]
    assert losses.feature_distillation(student, teacher).item() == pytest.approx(torch.stack(each).mean().item())
    cosine = 1 - F.cosine_similarity(student, teacher).mean()
    assert losses.feature_distillation(student, teacher).item() == pytest.approx(cosine.item())
    l2 = losses.feature_distillation(student, teacher, "l2")
    assert l2.item() == pytest.approx((student - teacher).square().mean().item())


def test_regression_with_batch_normalization_ignores_scale_and_offset() -> None:
    student, teacher = features(0, 64, 3), features(1, 64, 3)
    plain = losses.regression(student, teacher, bn=True)
    assert losses.regression(5 * student + 2, 0.1 * teacher - 1, bn=True).item() == pytest.approx(
        plain.item(), rel=1e-2
    )
    assert losses.regression(student, teacher).item() == pytest.approx((student - teacher).square().mean().item())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_equal_features_have_no_loss_and_only_the_student_learns(name: str) -> None:
    student, *others = arguments(name)
    queue = others[1:2] * 2
    assert FUNCTIONS[name](student, student, *queue).item() == pytest.approx(0, abs=1e-5)
    student.requires_grad_()
    others[0].requires_grad_()
    loss = FUNCTIONS[name](student, *others)
    assert loss.ndim == 0 and loss.item() > 0
    loss.backward()
    assert student.grad is not None and student.grad.abs().sum() > 0 and others[0].grad is None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_descent_lowers_the_loss(name: str) -> None:
    student, *others = arguments(name)
    student.requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.05)
    first = FUNCTIONS[name](student, *others).item()
    for _ in range(60):
        loss = FUNCTIONS[name](student, *others)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert FUNCTIONS[name](student, *others).item() < first / 2
