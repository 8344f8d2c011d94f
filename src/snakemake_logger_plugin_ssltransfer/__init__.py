"""The console of a run: one line per finished job with its result, and at the end the table and the path of the report.

Snakemake finds this plugin by its name; `logger: ssltransfer` in a profile selects it. Dry runs and `--verbose`,
`--printshellcmds` or `--debug-dag` print Snakemake's own messages.
"""

import logging
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter  # type: ignore[import-untyped]
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from ssltransfer.artifacts.files import ArtifactError, read_json
from ssltransfer.artifacts.metrics import read_metrics

KEPT = ("Nothing to be done", "Unlocking", "Locking", "Removing", "Will exit")
SHOWN = ("loss", "accuracy", "val_loss", "val_accuracy")
LOG_LINES = 30  # of a failed job


class LogHandler(LogHandlerBase):
    """Writes to the same stream as Snakemake's handler."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        """Choose between these lines and Snakemake's own."""
        settings: Any = self.common_settings
        self._stream: TextIO = sys.stdout if settings.stdout else sys.stderr
        self._formatter = DefaultFormatter(settings.quiet, settings.show_failed_logs)
        self._whole: logging.Handler | None = None
        if settings.dryrun or settings.verbose or settings.printshellcmds or settings.debug_dag:
            flags = (settings.quiet, settings.debug_dag, settings.verbose, settings.dryrun, settings.printshellcmds)
            self._whole = ColorizingTextHandler(settings.nocolor, self._stream, self._formatter)
            self._whole.addFilter(DefaultFilter(*flags).filter)
        self._running: dict[int, tuple[str, float, Any]] = {}
        self._finished: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write what a record means for the user, if anything."""
        if self._whole:
            self._whole.handle(record)
            return
        fields: Any = record
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO:
            self._running[fields.jobid] = (job_name(fields.rule_name, fields.wildcards), time.monotonic(), fields)
        elif event == LogEvent.JOB_FINISHED:
            self._finished.append(fields.job_id)
        elif event == LogEvent.PROGRESS:
            self._report_finished(fields.done, fields.total)
        elif event == LogEvent.JOB_ERROR:
            self._running.pop(fields.jobid, None)
            self._write(failure(fields, show_log=self.common_settings.show_failed_logs))
        elif record.levelno >= logging.WARNING or (event is None and str(record.msg).startswith(KEPT)):
            self._write(self._formatter.format(record))
        elif event == LogEvent.RUN_INFO and (stats := getattr(record, "stats", None)):
            counts = ", ".join(f"{count} {rule}" for rule, count in stats.items() if rule not in ("total", "all"))
            self._write(f"{stats['total']} jobs: {counts}")
        self._show_running()

    def _report_finished(self, done: int, total: int) -> None:
        for number in self._finished:
            name, began, job = self._running.pop(number, ("", 0.0, None))
            if job is None or not job.output:  # the target
                continue
            took = timedelta(seconds=round(time.monotonic() - began))
            width = len(str(total))
            self._write(f"[{done:{width}}/{total}] {took} {name}: {result_of(job.rule_name, job.output, job.log)}")
            if job.rule_name == "report":
                self._write(final_lines(Path(job.output[0])))
        self._finished.clear()

    def _write(self, text: str) -> None:
        clear = "\r\033[K" if self._stream.isatty() else ""
        print(f"{clear}{text}", file=self._stream, flush=True)

    def _show_running(self) -> None:
        """The jobs that run, in the last line of a terminal."""
        if self._running and self._stream.isatty():
            names = [name for name, _, _ in self._running.values()]
            columns = os.get_terminal_size(self._stream.fileno()).columns
            print(f"\r\033[K{running_line(names, columns)}", end="", file=self._stream, flush=True)


def running_line(names: list[str], columns: int) -> str:
    """As many names of running jobs as fit into a line of a terminal, uncut, and the number of the others."""
    for shown in range(len(names), 0, -1):
        rest = f" and {len(names) - shown} more" if shown < len(names) else ""
        if len(line := f"{', '.join(names[:shown])}{rest} ...") < columns:
            return line
    return f"{len(names)} running ..."


def job_name(rule: str, wildcards: Any) -> str:
    """Stage and names, such as student/cc or evaluate/knn/cc."""
    values = wildcards.values() if isinstance(wildcards, dict) else wildcards or ()
    return "/".join([rule, *map(str, values)])


def result_of(rule: str, outputs: list[str], logs: list[str]) -> str:
    """Accuracy of an evaluation, last losses of a training; the last line of the log of any other job."""
    try:
        if rule == "evaluate":
            metrics = read_metrics(Path(outputs[0]))
            chance = "" if metrics.chance is None else f" (chance {metrics.chance:.1f})"
            return f"{metrics.primary_metric} {metrics.mean():.1f} {metrics.unit}{chance}"
        if rule in ("pretext", "student") and (summary := read_json(Path(outputs[0])).get("summary")):
            chance = f" (chance {summary['chance_loss']:.3f})" if "chance_loss" in summary else ""
            values = [f"{key.replace('_', ' ')} {summary[key]:.3f}" for key in SHOWN if key in summary]
            return ", ".join([values[0] + chance, *values[1:]])
        if rule == "features":
            return "{} images, {} dimensions".format(*read_json(Path(outputs[0]))["shape"])
    except (ArtifactError, IndexError, KeyError, TypeError, ValueError):
        pass
    return outputs[0] if rule == "report" else (last_lines(logs, 1) or ["done"])[0]


def final_lines(report: Path) -> str:
    """The tables of the report, and its path."""
    try:
        tables = report.with_name("summary.txt").read_text("utf-8")
    except OSError:
        tables = ""
    return f"\n{tables}The report: {report.resolve()}"


def failure(job: Any, *, show_log: bool) -> str:
    """Which job failed, its log file and the end of the log."""
    lines = [f"Error in {job_name(job.rule_name, getattr(job, 'wildcards', ()))}: {', '.join(job.output)} not made."]
    lines += [f"Logfile {log}:" for log in job.log]
    if show_log:
        lines += last_lines(job.log, LOG_LINES)
    return "\n".join(lines)


def last_lines(logs: list[str], number: int) -> list[str]:
    """The last lines of a job's log that are not empty."""
    try:
        text = Path(logs[0]).read_text("utf-8", errors="replace")
    except (OSError, IndexError):
        return []
    return [line for line in text.splitlines() if line.strip()][-number:]
