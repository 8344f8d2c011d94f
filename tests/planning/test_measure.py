"""Rates of this machine: measured by default, assumed only if asked for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from ssltransfer.cli import main
from ssltransfer.config.backbones import ResNet18
from ssltransfer.models.flops import flops
from ssltransfer.planning import measure
from ssltransfer.planning.measure import measure_machine

CONFIG = str(Path(__file__).parents[2] / "config" / "presets" / "distill.yaml")


def test_measured_rates_are_those_of_a_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SECONDS", 0.1)
    threads = torch.get_num_threads()
    machine = measure_machine(3)
    assert torch.get_num_threads() == threads and machine.cores == 3
    for name, pace in machine.paces.items():
        low, high = (5, 1e5) if name == "decoding/files" else (1e8, 1e16)
        assert low < pace < high, name
    assert {name.partition("/")[0] for name in machine.paces} == {"forward", "training", "products", "decoding"}


def test_measured_rates_count_calls_and_their_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SECONDS", 0.1)
    assert 10 < measure._per_second(lambda: time.sleep(0.01)) < 100
    monkeypatch.setattr(measure, "_per_second", lambda work: 1.0)
    paces = measure_machine(1).paces
    batch, side, options = (128, 8192, ResNet18()) if torch.cuda.is_available() else (8, 1024, ResNet18(img_size=64))
    forward = pytest.approx(batch * flops(options))
    assert paces["forward/resnet18"] == forward and paces["training/resnet18"] / 3 == forward
    assert paces["products"] == 2 * side**3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Measured on this machine ("),
        (["--assume"], "Assumed, not measured: "),
        (["--tflops", "7"], "at 7 TFLOP/s"),
    ],
)
def test_estimate_measures_unless_told(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "SECONDS", 0.05)
    assert main(["estimate", CONFIG, *words]) == 0
    assert said in capsys.readouterr().out.splitlines()[-1]
