"""Optional loggers of learning curves: TensorBoard, Weights & Biases, MLflow.

`SSLTRANSFER_LOGGERS=tensorboard,wandb` names them. They get the rows of curve.jsonl. They are not part of a spec, and
results have the same bytes with and without them. All write below the results folder; none needs a network.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ssltransfer.config.base import suggest
from ssltransfer.errors import UserError
from ssltransfer.extras import import_extra
from ssltransfer.logs import logger

VARIABLE = "SSLTRANSFER_LOGGERS"


class CurveLogger(Protocol):
    """Where rows of a learning curve go."""

    def add(self, step: int, row: Mapping[str, float]) -> None:
        """Write the values of a row."""


class TensorBoard:
    """Event files in RESULTS/tensorboard/STAGE/NAME; those of an earlier start of the job are replaced."""

    def __init__(self, results: Path, name: str):
        import_extra("tensorboard", "tensorboard", "the logger tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        folder = results / "tensorboard" / name
        for events in folder.glob("events.out.tfevents.*"):
            events.unlink()
        self._writer = SummaryWriter(str(folder))

    def add(self, step: int, row: Mapping[str, float]) -> None:
        """Write scalars, and flush them."""
        for key, value in row.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()


class WandB:
    """A run of Weights & Biases for each start of a job, offline in RESULTS/wandb unless WANDB_MODE is set."""

    def __init__(self, results: Path, name: str):
        wandb = import_extra("wandb", "wandb", "the logger wandb")
        results.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(project="ssltransfer", name=name, group=name.split("/")[0], dir=str(results), mode=mode)

    def add(self, step: int, row: Mapping[str, float]) -> None:
        """Log a row."""
        self._run.log(dict(row), step=step)


class MLflow:
    """A run of MLflow for each start of a job, in RESULTS/mlflow.db unless MLFLOW_TRACKING_URI is set."""

    def __init__(self, results: Path, name: str):
        mlflow = import_extra("mlflow", "mlflow", "the logger mlflow")
        results.mkdir(parents=True, exist_ok=True)
        address = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{results.absolute()}/mlflow.db")
        self._client = mlflow.MlflowClient(address)
        found = self._client.get_experiment_by_name("ssltransfer")
        experiment = found.experiment_id if found else self._client.create_experiment("ssltransfer")
        self._run = self._client.create_run(experiment, run_name=name).info.run_id

    def add(self, step: int, row: Mapping[str, float]) -> None:
        """Log the metrics of a row."""
        for key, value in row.items():
            self._client.log_metric(self._run, key, value, step=step)


LOGGERS: dict[str, Callable[[Path, str], CurveLogger]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


class CurveLoggers:
    """The loggers of a job, those that the environment names.

    Args:
        folder: work directory of the job; None in processes that do not write.

    Raises:
        UserError: the environment names an unknown logger, or one cannot start.
        MissingExtraError: its package is not installed.
    """

    def __init__(self, folder: Path | None):
        names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()] if folder else []
        for name in names:
            if name not in LOGGERS:
                raise UserError(f"{VARIABLE} names {name!r}{suggest(name, LOGGERS)}")
        self._loggers = {name: _start(name, *_place(folder)) for name in names if folder}
        self._logged = 0

    def log(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Log the new rows of a curve; after a restart all of them.

        A logger that fails is given up with a warning, because it must not end a training.
        """
        for row in rows[self._logged :]:
            for name, one in list(self._loggers.items()):
                try:
                    one.add(int(row.get("step", row.get("iteration", 0))), row)
                except Exception as error:
                    logger.warning(f"the logger {name} failed and gets no more rows: {error}")
                    del self._loggers[name]
        self._logged = len(rows)


def _start(name: str, results: Path, job: str) -> CurveLogger:
    try:
        return LOGGERS[name](results, job)
    except UserError:
        raise
    except Exception as error:  # packages raise errors of all kinds
        raise UserError(f"the logger {name} cannot start ({error}); fix it, or leave it out of {VARIABLE}.") from error


def _place(folder: Path) -> tuple[Path, str]:
    """The results folder and the name of a job (STAGE/NAME), by its work directory."""
    *above, last = folder.absolute().parts
    if "work" not in above:
        return folder.absolute().parent, last
    work = len(above) - 1 - above[::-1].index("work")
    below = [part for part in (*above, last)[work + 1 :] if not re.fullmatch(r"[0-9a-f]{16,}", part)]
    return Path(*above[: work - 2]), "/".join([*above[work - 2 : work], *below])
