"""A step of a task with one weight, computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import Task
from ssltransfer.training.train_step import Trainer, build_optimizer

CPU = Devices(torch.device("cpu"), 0)


class Square(Task):
    """Loss (w * x)^2, a mean over the batch, where x is the sample's id."""

    chance_loss = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0]))

    @property
    def transform(self) -> ResizeCenterCrop:
        return ResizeCenterCrop(4, 4)

    def forward(self, batch: Batch, rng: object) -> dict[str, Tensor]:
        return {"loss": (self.w * batch.ids).square().mean()}


def batch_of(*ids: int) -> Batch:
    n = len(ids)
    return Batch(torch.zeros(n, 3, 4, 4, dtype=torch.uint8), torch.tensor(ids), torch.zeros(n, dtype=torch.int64))


def test_trainer_moves_the_task_to_channels_last() -> None:
    task = Square()
    task.conv = nn.Conv2d(3, 8, 3)
    Trainer(task, Schedule(steps=1, batch_size=4, lr=0.1), 0, CPU)
    assert task.conv.weight.is_contiguous(memory_format=torch.channels_last) and not task.conv.weight.is_contiguous()


@pytest.mark.parametrize("micro_batch_size", [None, 2, 1])
def test_trainer_accumulates_the_gradient_of_the_batch(micro_batch_size: int | None):
    """d/dw mean((w x)^2) = 2 w mean(x^2) = 2 * (1 + 4 + 9 + 16) / 4 = 15 at w = 1, and w becomes 1 - 0.03 * 15."""
    schedule = Schedule(
        steps=1, batch_size=4, lr=0.1, momentum=0.0, weight_decay=0.0, micro_batch_size=micro_batch_size
    )
    trainer = Trainer(Square(), schedule, 0, CPU)
    values = trainer.forward_backward(batch_of(1, 2, 3, 4)).read()
    assert values == {"loss": pytest.approx(7.5)}
    weight = trainer.task.get_parameter("w")
    assert weight.grad is not None and weight.grad.item() == pytest.approx(15.0)
    trainer.optimizer_step(0.03)
    assert weight.item() == pytest.approx(0.55)


def test_trainer_clips_the_norm_of_the_gradient():
    """The gradient 2 * 4 = 8 is scaled to 0.5."""
    schedule = Schedule(steps=1, batch_size=1, lr=0.1, momentum=0.0, weight_decay=0.0, clip_grad_norm=0.5)
    trainer = Trainer(Square(), schedule, 0, CPU)
    trainer.forward_backward(batch_of(2))
    trainer.optimizer_step(0.1)
    assert trainer.task.get_parameter("w").item() == pytest.approx(1 - 0.1 * 0.5, rel=1e-5)


class SquareOfBias(Square):
    """The same loss of a parameter that is a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = self.w
        del self.w

    def forward(self, batch: Batch, rng: object) -> dict[str, Tensor]:
        return {"loss": (self.bias * batch.ids).square().mean()}


def test_trainer_multiplies_the_lr_of_biases():
    """The gradient is 2 * 4 = 8, and the bias becomes 1 - 2 * 0.01 * 8."""
    schedule = Schedule(steps=1, batch_size=1, lr=0.1, momentum=0.0, weight_decay=0.0, bias_lr_mult=2.0)
    trainer = Trainer(SquareOfBias(), schedule, 0, CPU)
    trainer.forward_backward(batch_of(2))
    trainer.optimizer_step(0.01)
    assert trainer.task.get_parameter("bias").item() == pytest.approx(0.84)


def test_pop_grads_and_set_grads_move_the_gradients():
    trainer = Trainer(Square(), Schedule(steps=1, batch_size=1), 0, CPU)
    trainer.forward_backward(batch_of(2))
    (gradient,) = trainer.pop_grads()
    assert trainer.task.w.grad is None and gradient is not None and gradient.item() == pytest.approx(8.0)
    trainer.set_grads([gradient])
    assert trainer.task.w.grad is gradient


class WithNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(48)
        self.linear = nn.Linear(48, 8)


def test_build_optimizer_groups_biases_and_norms():
    schedule = Schedule(steps=1, lr=0.1, bias_lr_mult=2.0, weight_decay=0.01, decay_norm_and_bias=False)
    task = WithNorm()
    task.linear.bias.requires_grad_(False)
    optimizer = build_optimizer(task, schedule)
    settings = {
        id(parameter): (group["lr_mult"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert settings == {
        id(task.norm.weight): (1.0, 0.0),
        id(task.norm.bias): (2.0, 0.0),
        id(task.linear.weight): (1.0, 0.01),
    }


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW"), ("rmsprop", "RMSprop")]
)
def test_build_optimizer_uses_torch(name: str, kind: str):
    schedule = Schedule.model_validate({"steps": 1, "optimizer": name})
    assert type(build_optimizer(WithNorm(), schedule)).__name__ == kind
