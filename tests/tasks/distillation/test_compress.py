"""CompRess: its loss, its queues, and its slow copy."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.config.methods import Compress1q, Crd
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.tasks.distillation.compress import CompressTask, divergence
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs
from ssltransfer.training.task import TrainingError

from .conftest import InputsMaker

ONE = {"name": "compress-1q", "queue_size": 40}
TWO = {"name": "compress-2q", "queue_size": 40}


def batch_of(task: CompressTask, given: StudentInputs, start: int = 0, n: int = 16) -> Batch:
    return next(load_batches(given.index, task.transform, sequential_keys(range(start, start + n), n), seed=0))


def plain(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The definition, one image at a time (protocols 3.3)."""
    total = torch.zeros((), dtype=student.dtype)
    for s, t in zip(student, teacher, strict=True):
        p, q = (torch.exp(x / temperature) / torch.exp(x / temperature).sum() for x in (t, s))
        total = total + sum(a * (torch.log(a) - torch.log(b)) for a, b in zip(p, q, strict=True))
    return total / len(student)


@pytest.mark.parametrize("temperature", [0.04, 0.07, 1.0])
def test_divergence_matches_definition_with_gradient(temperature: float) -> None:
    torch.manual_seed(0)
    student = (torch.rand(5, 7, dtype=torch.float64) * 2 - 1).requires_grad_()
    again = student.detach().clone().requires_grad_()
    teacher = (torch.rand(5, 7, dtype=torch.float64) * 2 - 1).requires_grad_()
    found, expected = (
        divergence(student, teacher, temperature, temperature)[0],
        plain(again, teacher.detach(), temperature),
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    found.backward()
    expected.backward()
    assert again.grad is not None and torch.allclose(student.grad, again.grad, rtol=1e-10)  # type: ignore[arg-type]
    assert teacher.grad is None


def test_divergence_matches_worked_example() -> None:
    """Two places in the queue, temperature 1/ln 3: similarities (1, 0) are odds of 3 to 1."""
    teacher, student = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    loss, uniform = divergence(student, teacher, 1 / math.log(3), 1 / math.log(3))
    assert loss.item() == pytest.approx(0.75 * math.log(3) - 0.25 * math.log(3))
    assert uniform.item() == pytest.approx(math.log(2) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert divergence(teacher, teacher, 0.04, 0.04)[0].item() == 0.0


def test_compress_loss_matches_features_and_queue(make_given: InputsMaker) -> None:
    """One queue: the student, mapped into the teacher's space, beside the teacher's past features."""
    given = make_given(ONE)
    task = CompressTask(given).eval()
    batch = batch_of(task, given)
    with torch.no_grad():
        views, queue = task.views(batch, batch.rng(0)), task.get_buffer("teacher_queue")
        teacher, student = task.teacher_features(batch, views), task.head(task.student_features(views))
        cosine = [
            F.cosine_similarity(x[:, None], F.normalize(queue)[None], dim=2) * queue.norm(dim=1)
            for x in (student, teacher)
        ]
        expected = plain(cosine[0].double(), cosine[1].double(), 0.04)
        assert task(batch, batch.rng(0))["loss"].item() == pytest.approx(expected.item(), rel=1e-3)
    assert isinstance(task.head, nn.Linear) and task.head.out_features == 64 and not task._pending


def test_two_temperatures_match_a_worked_example() -> None:
    """Similarities (1, 0): odds of 3 to 1 for the teacher, of 9 to 1 for a student of half its temperature."""
    similarities = torch.tensor([[1.0, 0.0]]).double()
    loss, _ = divergence(similarities, similarities, 0.5 / math.log(3), 1 / math.log(3))
    assert loss.item() == pytest.approx(0.75 * math.log(0.75 / 0.9) + 0.25 * math.log(0.25 / 0.1))


def test_seed_compares_with_the_teachers_own_feature_first(make_given: InputsMaker) -> None:
    """Fang et al. 2021: their cross-entropy, less the teacher's entropy, which has no gradient."""
    given = make_given({**ONE, "include_self": True, "temperature": 0.01, "student_temperature": 0.2})
    task = CompressTask(given).train()
    assert task.chance_loss == pytest.approx(math.log(41))
    batch = batch_of(task, given)
    with torch.no_grad():
        task(batch, batch.rng(0))
        task.after_step(0)  # their past features are in the queue, and excluded
        views, queue = task.views(batch, batch.rng(0)), task.get_buffer("teacher_queue").double()
        teacher = F.normalize(task.teacher_features(batch, views).double())
        student = F.normalize(task.head(task.student_features(views)).double())
        expected = 0.0
        for i, (s, t) in enumerate(zip(student, teacher, strict=True)):
            features = torch.stack([t, *queue[:i], *queue[i + 1 :]])
            p, log_q = F.softmax(features @ t / 0.01, 0), F.log_softmax(features @ s / 0.2, 0)
            expected += float(p @ (p.log() - log_q)) / 16
            assert p.argmax() == 0
        found = task(batch, batch.rng(0))["loss"].item()
    assert found == pytest.approx(expected, rel=1e-3)


def test_compress_loss_is_zero_for_the_teacher_itself(make_given: InputsMaker) -> None:
    """The student is the teacher, the linear layer the identity, both queues one: no method finds a difference."""
    for method in (ONE, TWO):
        given = make_given({**method, "augment": "none"}, backbone=_teacher_options())
        task = CompressTask(given)
        assert task._online is not None
        task.backbone.load_state_dict(task._online.model.backbone.state_dict())
        task.normalization = task._online.model.normalization
        if isinstance(task.head, nn.Linear):
            nn.init.eye_(task.head.weight)
            nn.init.zeros_(task.head.bias)
        else:
            task.student_queue.copy_(task.teacher_queue)  # type: ignore[operator, arg-type]
        task.eval()
        batch = batch_of(task, given)
        assert task(batch, batch.rng(0))["loss"].item() == pytest.approx(0.0, abs=1e-5)


def _teacher_options() -> Any:
    from .conftest import TEACHER

    return TEACHER


def test_divergence_leaves_out_excluded_similarities() -> None:
    torch.manual_seed(0)
    student = (torch.rand(3, 6, dtype=torch.float64) * 2 - 1).requires_grad_()
    teacher = torch.rand(3, 6, dtype=torch.float64) * 2 - 1
    excluded = torch.zeros(3, 6, dtype=torch.bool)
    excluded[0, 2] = excluded[1, :5] = True
    loss, uniform = divergence(student, teacher, 0.04, 0.04, excluded)
    rows = [divergence(student[i][~excluded[i]][None], teacher[i][~excluded[i]][None], 0.04, 0.04) for i in range(3)]
    assert loss.item() == pytest.approx(sum(row[0].item() for row in rows) / 3, rel=1e-12)
    assert uniform.item() == pytest.approx(sum(row[1].item() for row in rows) / 3, rel=1e-6)
    loss.backward()
    assert student.grad is not None and not student.grad[excluded].any() and student.grad.isfinite().all()


@pytest.mark.parametrize("method", [ONE, TWO])
def test_compress_leaves_out_own_copies(method: dict[str, Any], make_given: InputsMaker) -> None:
    """An image in the queue has no probability there, unless `exclude_self` is off or it is a validation image."""
    given = make_given({**method, "augment": "none"})
    task = CompressTask(given).train()
    batch = batch_of(task, given)
    for part in batch.split(4):
        task(part, part.rng(0))
    task.after_step(0)
    assert task.get_buffer("queue_ids").tolist() == [*range(16), *[-1] * 24]
    own = task._own_copies(batch)
    assert own is not None and torch.equal(own, torch.eye(16, 40, dtype=torch.bool))
    loss = task(batch, batch.rng(0))["uniform"]
    for queue in (name for name, _ in task.named_buffers() if name.endswith("_queue")):
        task.get_buffer(queue)[:16] = F.normalize(torch.randn(16, task.get_buffer(queue).shape[1]))
    one = batch.split(1)[0]
    task.get_buffer("teacher_queue")[0] = 0
    before = task(one, one.rng(0))["loss"]
    task.get_buffer("teacher_queue")[0] = 1000.0  # the place of the image itself
    assert torch.equal(task(one, one.rng(0))["loss"], before) and loss.isfinite()
    assert task.eval()._own_copies(batch) is None
    assert CompressTask(make_given({**method, "exclude_self": False})).train()._own_copies(batch) is None


def test_queue_follows_the_number_of_images() -> None:
    options = Compress1q(teacher="t")
    sizes = {n: options.num_others(n) for n in (4, 100, 2000, 5000, 1_281_167)}
    assert sizes == {4: 2, 100: 50, 2000: 256, 5000: 500, 1_281_167: 128_000}
    assert Crd(teacher="t").num_others(1_281_167) == 16_384 and Crd(teacher="t", num_negatives=7).num_others(9) == 7


@pytest.mark.parametrize("method", [{"name": "compress-2q", "queue_size": 48}, {"name": "crd", "num_negatives": 48}])
def test_queue_as_large_as_the_dataset_is_refused(method: dict[str, Any], make_given: InputsMaker) -> None:
    given = make_given(method)
    assert len(given.index) == 48
    key = list(method)[1]
    with pytest.raises(
        TrainingError, match=f"method.{key}: 48 features of 48 images include each image more than once"
    ):
        STUDENT_METHODS[type(given.spec.method)](given)


def test_compress_queue_is_a_ring_in_batch_order(make_given: InputsMaker) -> None:
    """16 images per step into 40 places: the third step wraps around. A step's own images are not yet in the queue."""
    given = make_given({**TWO, "augment": "none"})
    task = CompressTask(given).train()
    start = [task.teacher_queue.clone(), task.student_queue.clone()]  # type: ignore[operator]
    rows: list[Tensor] = []
    for step in range(3):
        batch = batch_of(task, given, 16 * step)
        before = task.teacher_queue.clone()  # type: ignore[operator]
        for part in batch.split(4):
            task(part, part.rng(0))
        assert torch.equal(task.teacher_queue, before)  # type: ignore[arg-type]
        task.after_step(step)
        with torch.no_grad():
            rows.append(F.normalize(task.teacher_features(batch, task.views(batch, batch.rng(0)))))
    said = torch.cat(rows)
    expected = start[0].clone()
    expected[:16], expected[16:32], expected[32:] = said[:16], said[16:32], said[32:40]
    expected[:8] = said[40:]
    assert torch.allclose(task.teacher_queue, expected, atol=1e-6)  # type: ignore[arg-type]
    assert int(task.get_buffer("queue_ptr")) == 8 and not torch.equal(start[0], start[1])


def test_momentum_encoder_follows_without_gradient(make_given: InputsMaker) -> None:
    from ssltransfer.config.backbones import ResNet18

    given = make_given({**TWO, "momentum": 0.9}, backbone=ResNet18(width_mult=0.125, img_size=64))
    task = CompressTask(given).train()
    assert task.momentum_encoder is not None
    slow: Any = task.momentum_encoder["backbone"]
    fast: Any = task.backbone
    batch = batch_of(task, given)
    before = slow.conv1.weight.clone()
    mean = slow.bn1.running_mean.clone()
    task(batch, batch.rng(0))["loss"].backward()
    assert all(parameter.grad is None for parameter in slow.parameters())
    # Only its norms are in training mode.
    assert not slow.training and slow.bn1.training and not torch.equal(slow.bn1.running_mean, mean)
    with torch.no_grad():
        fast.conv1.weight.add_(1.0)
    task.after_step(0)
    assert torch.allclose(slow.conv1.weight, before + 0.1, atol=1e-6)
    task.eval()
    assert not slow.bn1.training


def test_compress_2q_projection_sets_student_queue_width(make_given: InputsMaker) -> None:
    task = CompressTask(make_given({**TWO, "projection_dim": 24}))
    assert task.student_queue.shape == (40, 24) and task.teacher_queue.shape == (40, 64)


def test_compress_training_lowers_the_loss(make_given: InputsMaker) -> None:
    """On the same few images, well below that of equal probabilities."""
    given = make_given({**ONE, "augment": "none"}, optimizer="adam", lr=0.003, weight_decay=0.0)
    from ssltransfer.training.devices import Devices
    from ssltransfer.training.train_step import Trainer

    task = CompressTask(given).train()
    trainer = Trainer(task, given.spec.schedule, 0, Devices(torch.device("cpu"), 0))
    batch = batch_of(task, given)
    found = []
    for step in range(40):
        found.append(trainer.forward_backward(batch).read())
        trainer.optimizer_step(given.spec.schedule.lr)
        task._pending = []  # the queue stays as it is
        assert step >= 0
    assert found[-1]["loss"] < 0.3 * found[-1]["uniform"] <= 0.3 * task.chance_loss
