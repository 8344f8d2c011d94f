import pytest
import torch
from pydantic import ValidationError

from ssltransfer.config.schedule import Schedule


def reference(schedule: torch.optim.lr_scheduler.LRScheduler, optimizer: torch.optim.Optimizer, n: int) -> list[float]:
    found = []
    for _ in range(n):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def sgd(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def test_cosine_matches_torch():
    schedule = Schedule(steps=37, lr=0.3, lr_schedule="cosine")
    optimizer = sgd(0.3)
    expected = reference(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 37), optimizer, 37)
    assert [schedule.lr_at(step, 100) for step in range(37)] == pytest.approx(expected)


def test_milestones_match_torch_in_epochs_and_steps():
    optimizer = sgd(0.1)
    expected = reference(torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60], 0.5), optimizer, 90)
    in_steps = Schedule(steps=90, lr=0.1, milestones=(30, 60), gamma=0.5)
    in_epochs = Schedule(epochs=9, batch_size=10, lr=0.1, milestones=(3, 6), gamma=0.5)
    assert [in_steps.lr_at(step, 12345) for step in range(90)] == pytest.approx(expected)
    assert in_epochs.total_steps(100) == 90
    assert [in_epochs.lr_at(step, 100) for step in range(90)] == pytest.approx(expected)


@pytest.mark.parametrize("samples", [96, 97, 1000, 1_281_167])
def test_milestone_applies_at_first_step_of_epoch(samples: int):
    """30 epochs of samples/256 steps are seldom a whole number of steps: the first step at or after it has the drop."""
    schedule = Schedule(epochs=90, batch_size=32, lr=1.0, milestones=(30.0,))
    first = -(-30 * samples // 32)
    assert schedule.lr_at(first - 1, samples) == 1.0
    assert schedule.lr_at(first, samples) == pytest.approx(0.1)


def test_caffenet_schedule():
    """x0.1 every 100k of 350k updates (solver_cfn_jps.prototxt)."""
    schedule = Schedule(steps=350_000, lr=0.01, step_size=100_000)
    at = [schedule.lr_at(step, 5) for step in (0, 99_999, 100_000, 299_999, 300_000, 349_999)]
    assert at == pytest.approx([0.01, 0.01, 0.001, 1e-4, 1e-5, 1e-5])


def test_warmup_is_linear_and_reaches_lr():
    schedule = Schedule(steps=20, lr=0.4, warmup=4, lr_schedule="constant")
    assert [schedule.lr_at(step, 1) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    in_epochs = Schedule(epochs=5, batch_size=10, lr=0.4, warmup=1, lr_schedule="constant")
    assert [in_epochs.lr_at(step, 40) for step in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_total_steps_is_at_least_one():
    assert Schedule(epochs=0.01, batch_size=256).total_steps(100) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of epochs and steps"),
        ({"epochs": 1, "steps": 2}, "exactly one of epochs and steps"),
        ({"steps": 9, "milestones": (3,), "step_size": 2}, "not both"),
        ({"steps": 9, "batch_size": 10, "micro_batch_size": 4}, "not a multiple of micro_batch_size"),
        ({"steps": 9, "lr": 0}, "greater than 0"),
        ({"steps": 9, "lr": float("nan")}, "finite|greater"),
    ],
)
def test_schedule_refuses_invalid_options(given: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        Schedule.model_validate(given)


@pytest.mark.parametrize(
    ("images", "stated", "batch", "updates"),
    [
        (1_281_167, 256, 256, 650_593),  # 130 epochs
        (100_000, 256, 256, 50_781),
        (1_000_000_000, 256, 256, 650_593),  # as many images as on ImageNet
        (1_000_000_000, 1024, 1024, 162_648),
        (20_000, 256, 256, 20_000),
        (2_000, 256, 64, 20_000),
        (400, 256, 16, 20_000),
        (200, 256, 16, 12_500),  # 1,000 epochs
        (3, 100, 25, 120),
    ],
)
def test_auto_epochs_depend_on_the_number_of_images(images: int, stated: int, batch: int, updates: int):
    auto = Schedule(epochs="auto", batch_size=stated, micro_batch_size=stated, lr=1.0, lr_schedule="cosine")
    schedule = auto.for_images(images)
    assert (schedule.batch_size, schedule.total_steps(images)) == (batch, updates)
    assert auto.stated(images) == {"schedule": {"steps": updates, "batch_size": batch, "warmup": 0.02 * updates}}
    rates = [schedule.lr_at(step, images) for step in range(min(updates, 30_000))]
    peak = rates.index(max(rates))
    assert abs(peak - 0.02 * updates) <= 1
    assert rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert schedule.lr_at(updates - 1, images) < max(0.01, 6 / updates)
    assert Schedule(epochs=3).for_images(images) == Schedule(epochs=3) and not Schedule(epochs=3).stated(images)


def test_auto_epochs_have_their_own_warmup_and_no_milestones():
    for key, value in (("warmup", 5), ("milestones", (3,)), ("step_size", 3)):
        with pytest.raises(ValidationError, match="or state the epochs"):
            Schedule.model_validate({"epochs": "auto", key: value})
