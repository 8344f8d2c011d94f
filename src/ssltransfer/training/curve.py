"""The learning curve: rows of mean values, when they are due, and what a training returns."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssltransfer.artifacts.files import friendly_os_errors, write_text
from ssltransfer.training.loggers import CurveLoggers

ROWS = 100  # of a learning curve
VALIDATIONS = 20  # along a training


@dataclass(frozen=True)
class TrainResult:
    """Result of a training, besides the weights.

    Attributes:
        curve: rows of {step, epoch, lr, loss, ...}, validation values as val_*. In a multi-task training each task has
            its own, as `name.loss`, and `loss` is the mean over the steps.
        measured: what varies between equal runs, for run.json: throughput and fraction of time waiting for data.
    """

    curve: list[dict[str, float]]
    measured: dict[str, Any]

    def summary(self, chance_loss: float) -> dict[str, float]:
        """The last value of each column, and the chance-level loss."""
        last: dict[str, float] = {}
        for row in self.curve:
            last |= row
        return last | {"chance_loss": chance_loss}


class Curve:
    """Rows of a learning curve: about `ROWS` in a training of `total` steps, `VALIDATIONS` with validation values.

    Each row is written to `file`, if given, when it is added, as a line of JSON, and to the optional loggers.

    Attributes:
        rows: the rows so far.
    """

    def __init__(self, total: int, file: Path | None = None):
        self.total = total
        self._file = file
        self._loggers = CurveLoggers(file.parent if file else None)
        self._appending = False  # the file has the rows so far
        self.rows: list[dict[str, float]] = []
        self._sums: dict[str, list[float]] = {}  # since the last row: name -> [sum, number of steps]
        self._every = max(1, total // ROWS)

    def update(self, values: Mapping[str, float]) -> None:
        """Add the values of one step."""
        for name, value in values.items():
            total, count = self._sums.get(name, [0.0, 0])
            self._sums[name] = [total + value, count + 1]

    def means(self) -> dict[str, float]:
        """The mean of each value since the last row, over the steps in which it occurred."""
        return {name: total / count for name, (total, count) in self._sums.items()}

    def row_due(self, before: int, done: int) -> bool:
        """Whether a row is due after `done` steps, when the last check was after `before` steps."""
        return self._due(self._every, before, done)

    def validation_due(self, before: int, done: int) -> bool:
        """Whether that row has validation values."""
        return self._due(self._every * max(1, ROWS // VALIDATIONS), before, done)

    def _due(self, interval: int, before: int, done: int) -> bool:
        return done // interval > before // interval or done == self.total

    def add_row(self, row: dict[str, float]) -> None:
        """Append a row, also to the file, and reset the means."""
        self.rows.append(row)
        self._sums = {}
        if self._file:
            # After a restart the file is replaced: it may have rows after the checkpoint, or half a row.
            rows, mode = (self.rows[-1:], "a") if self._appending else (self.rows, "w")
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with friendly_os_errors(self._file), self._file.open(mode, encoding="utf-8") as file:
                file.write("".join(map(_line, rows)))
            self._appending = True
        self._loggers.log(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """Rows, and the sums of the next row."""
        return {"rows": self.rows, "sums": self._sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.rows, self._sums = state["rows"], state["sums"]

    def write(self) -> None:
        """Write all rows, all or nothing."""
        if self._file:
            write_text(self._file, "".join(map(_line, self.rows)))


def _line(row: Mapping[str, float]) -> str:
    return json.dumps(row, sort_keys=True) + "\n"


def describe_losses(row: Mapping[str, float], chance_losses: Mapping[str, float]) -> str:
    """Losses of a row beside the chance-level losses by column, such as "loss 2.100 (chance 2.079)"."""
    shown = [name for name in chance_losses if name in row]
    return ", ".join(f"{name.replace('.', ' ')} {row[name]:.3f} (chance {chance_losses[name]:.3f})" for name in shown)
