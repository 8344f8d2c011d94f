import pytest
import torch
from pydantic import ValidationError

from ssltransfer.config.schedule import Schedule


def reference(schedule: torch.optim.lr_scheduler.LRScheduler, optimiser: torch.optim.Optimizer, n: int) -> list[float]:
    found = []
    for _ in range(n):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return found


def sgd(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def test_cosine_is_torchs():
    schedule = Schedule(steps=37, lr=0.3, decay="cosine")
    optimiser = sgd(0.3)
    expected = reference(torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 37), optimiser, 37)
    assert [schedule.lr_at(step, 100) for step in range(37)] == pytest.approx(expected)


def test_steps_are_torchs_in_epochs_and_in_updates():
    optimiser = sgd(0.1)
    expected = reference(torch.optim.lr_scheduler.MultiStepLR(optimiser, [30, 60], 0.5), optimiser, 90)
    in_steps = Schedule(steps=90, lr=0.1, drops=(30, 60), factor=0.5)
    in_epochs = Schedule(epochs=9, batch=10, lr=0.1, drops=(3, 6), factor=0.5)
    assert [in_steps.lr_at(step, 12345) for step in range(90)] == pytest.approx(expected)
    assert in_epochs.total_steps(100) == 90
    assert [in_epochs.lr_at(step, 100) for step in range(90)] == pytest.approx(expected)


@pytest.mark.parametrize("samples", [96, 97, 1000, 1_281_167])
def test_a_drop_at_an_epoch_falls_on_its_first_step(samples: int):
    """30 epochs of samples/256 steps are seldom a whole number of steps: the first step at or after it has the drop."""
    schedule = Schedule(epochs=90, batch=32, lr=1.0, drops=(30.0,))
    first = -(-30 * samples // 32)
    assert schedule.lr_at(first - 1, samples) == 1.0
    assert schedule.lr_at(first, samples) == pytest.approx(0.1)


def test_caffenets_recipe():
    """x0.1 every 100k of 350k updates (solver_cfn_jps.prototxt)."""
    schedule = Schedule(steps=350_000, lr=0.01, drop_every=100_000)
    at = [schedule.lr_at(step, 5) for step in (0, 99_999, 100_000, 299_999, 300_000, 349_999)]
    assert at == pytest.approx([0.01, 0.01, 0.001, 1e-4, 1e-5, 1e-5])


def test_warm_up_is_linear_and_reaches_the_rate():
    schedule = Schedule(steps=20, lr=0.4, warmup=4, decay="constant")
    assert [schedule.lr_at(step, 1) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    in_epochs = Schedule(epochs=5, batch=10, lr=0.4, warmup=1, decay="constant")
    assert [in_epochs.lr_at(step, 40) for step in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_there_is_always_a_step():
    assert Schedule(epochs=0.01, batch=256).total_steps(100) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of epochs and steps"),
        ({"epochs": 1, "steps": 2}, "exactly one of epochs and steps"),
        ({"steps": 9, "drops": (3,), "drop_every": 2}, "not both"),
        ({"steps": 9, "batch": 10, "micro_batch": 4}, "no multiple of micro_batch"),
        ({"steps": 9, "lr": 0}, "greater than 0"),
        ({"steps": 9, "lr": float("nan")}, "finite|greater"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        Schedule.model_validate(given)
