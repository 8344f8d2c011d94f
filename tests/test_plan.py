"""The estimate: against numbers that are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssltransfer.config import read_config
from ssltransfer.config.trunks import AlexNet, CaffeNet, ResNet50, Vgg16
from ssltransfer.plan import Machine, estimate, flops, parameters, print_plan

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("trunk", "giga"),
    # Multiply-adds as published for 1000-way networks (fvcore's and torchvision's tables), without the last layer.
    [(AlexNet(), 0.71), (Vgg16(bn=False), 15.47), (ResNet50(), 4.09)],
)
def test_multiply_adds_are_the_published_ones(trunk: object, giga: float) -> None:
    assert flops(trunk, top=True) / 2e9 == pytest.approx(giga, rel=0.02)  # type: ignore[arg-type]


def test_parameters_are_caffes() -> None:
    """60,965,224 with the 1000-way fc8 (bvlc_reference_caffenet)."""
    assert parameters(CaffeNet(), top=True) + 4096 * 1000 + 1000 == 60_965_224


def test_the_papers_plan() -> None:
    costs = {
        cost.stage + " " + cost.name: cost
        for cost in estimate(read_config(REPOSITORY / "config/noroozi2018.yaml"), Machine())
    }
    features = costs["features jigsawpp-conv4 on imagenet-train"]
    assert features.disk_gb == pytest.approx(1_281_167 * 9600 * 2 / 1e9)
    cluster = costs["cluster jigsawpp-k2000"]
    assert cluster.memory_gb == pytest.approx(24.6, abs=0.1)
    # 49.15 TFLOP an iteration, 50 iterations, at the assumed 30 TFLOP/s.
    assert cluster.hours == pytest.approx(49.15 * 50 / 30 / 3600, rel=0.01)
    student = costs["student cc-jigsawpp-k2000"]
    assert student.limit == "decoding" and student.hours == pytest.approx(450_000 * 256 / (350 * 16) / 3600)


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(read_config(REPOSITORY / "config/noroozi2018.yaml"))
    text = capsys.readouterr().out
    assert "jigsawpp-conv4 on imagenet-train" in text and "24.6 GB" in text and "Assumed, not measured" in text
