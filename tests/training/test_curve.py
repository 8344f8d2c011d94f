from __future__ import annotations

import json
from pathlib import Path

from ssltransfer.training.curve import Curve, TrainResult, describe_losses


def test_curve_averages_over_the_steps_with_the_value():
    curve = Curve(100)
    curve.update({"loss": 1.0, "a.loss": 1.0})
    curve.update({"loss": 2.0})
    curve.update({"loss": 6.0, "a.loss": 4.0})
    assert curve.means() == {"loss": 3.0, "a.loss": 2.5}


def test_curve_has_100_rows_and_20_validations():
    curve = Curve(1000)
    rows = [step + 1 for step in range(1000) if curve.row_due(step, step + 1)]
    assert rows == list(range(10, 1001, 10))
    assert [step + 1 for step in range(1000) if curve.validation_due(step, step + 1)] == list(range(50, 1001, 50))


def test_curve_has_a_row_after_the_round_with_its_step():
    """Rounds of 3 steps, a row every 2 steps: each round reaches a multiple of 2. The last step is 200."""
    curve = Curve(200)
    ends = [min(first + 3, 200) for first in range(0, 200, 3) if curve.row_due(first, min(first + 3, 200))]
    assert ends == [*range(3, 200, 3), 200]
    assert not Curve(2000).row_due(0, 3) and Curve(2000).row_due(18, 21)


def test_curve_resumes_within_a_row():
    curve, resumed = Curve(100), Curve(100)
    curve.add_row({"step": 1})
    curve.update({"loss": 1.0})
    resumed.load_state_dict(curve.state_dict())
    resumed.update({"loss": 2.0})
    assert resumed.rows == [{"step": 1}] and resumed.means() == {"loss": 1.5}


def test_curve_writes_rows_as_they_come(tmp_path: Path):
    file = tmp_path / "work" / "curve.jsonl"
    curve = Curve(100, file)
    for step in (1, 2, 3):
        curve.add_row({"step": step, "loss": 0.5})
        assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == list(range(1, step + 1))
    before = file.read_bytes()
    curve.write()
    assert file.read_bytes() == before


def test_curve_replaces_rows_after_its_checkpoint(tmp_path: Path):
    """Killed after step 3, resumed from step 1."""
    file = tmp_path / "curve.jsonl"
    killed, resumed = Curve(100, file), Curve(100, file)
    killed.add_row({"step": 1})
    state = json.loads(json.dumps(killed.state_dict()))
    killed.add_row({"step": 2})
    killed.add_row({"step": 3})
    resumed.load_state_dict(state)
    resumed.add_row({"step": 2})
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_summary_is_the_last_value_of_each_column():
    result = TrainResult([{"step": 1, "loss": 3.0, "val_loss": 2.0}, {"step": 2, "loss": 1.0}], {})
    assert result.summary(2.079) == {"step": 2, "loss": 1.0, "val_loss": 2.0, "chance_loss": 2.079}


def test_describe_losses_shows_the_chance_level():
    assert describe_losses({"loss": 2.1}, {"loss": 2.079}) == "loss 2.100 (chance 2.079)"
    row = {"rp.loss": 2.0, "lr": 0.1, "loss": 2.0}
    assert describe_losses(row, {"rp.loss": 2.079, "col.loss": 5.7}) == "rp loss 2.000 (chance 2.079)"
