"""Claims of a configuration, decided by its results: the difference of two groups of models and its standard error."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import variance

from ssltransfer.artifacts.metrics import Metrics
from ssltransfer.config.entities import Claim, Report
from ssltransfer.report.load_results import Results
from ssltransfer.report.tables import PROTOCOLS_BY_NAME
from ssltransfer.report.text import NOTHING, number

ERRORS = 2  # standard errors that a difference must exceed


@dataclass(frozen=True)
class Verdict:
    """A claim under one evaluation.

    Attributes:
        difference: mean of the models minus mean of the others, positive if the models are better, in the unit of the
            metric; None without results.
        error: its standard error.
        holds: "yes", "no", or "not resolved".
    """

    difference: float | None
    error: float = 0.0
    holds: str = ""

    def __str__(self) -> str:
        if self.difference is None:
            return NOTHING
        sign = "+" if self.difference > 0 else ""
        return f"{sign}{number(self.difference)} ± {number(self.error)} {self.holds}"


def decide(claim: Claim, difference: float, error: float) -> str:
    """Whether a claim holds for a difference with this standard error."""
    beyond = ERRORS * error
    if claim.close_to is not None:
        excess = abs(difference) - claim.margin
        return "yes" if excess <= 0 else "no" if excess > beyond else "not resolved"
    if difference > beyond or (claim.not_worse_than is not None and difference >= 0):
        return "yes"
    return "no" if difference < -beyond else "not resolved"


def build_claims(report: Report, results: Results) -> list[tuple[Claim, dict[str, Verdict]]]:
    """Each claim with its verdict under each of its columns."""
    return [(claim, {column: _verdict(claim, column, results) for column in claim.columns}) for claim in report.claims]


def _verdict(claim: Claim, column: str, results: Results) -> Verdict:
    measured = results.evaluations.get(column, [])
    groups = [
        [metrics for metrics in measured if fnmatch.fnmatchcase(metrics.model, pattern)]
        for pattern in (claim.models, claim.others)
    ]
    if not all(groups):
        return Verdict(None)
    difference, error = compare(*groups)
    return Verdict(difference, error, decide(claim, difference, error))


def compare(models: Sequence[Metrics], others: Sequence[Metrics]) -> tuple[float, float]:
    """The mean of some models minus that of others under one evaluation, positive if they are better, and its error."""
    groups = models, others
    means = [[metrics.mean() for metrics in group] for group in groups]
    difference = math.fsum(means[0]) / len(means[0]) - math.fsum(means[1]) / len(means[1])
    protocol = PROTOCOLS_BY_NAME.get(models[0].protocol_name)
    if protocol and models[0].primary_metric in protocol.lower_is_better:
        difference = -difference
    squares = [variance(group) / len(group) for group in means if len(group) > 1]
    squares += [_variance_of_test_set(group) for group in groups]
    return difference, math.sqrt(math.fsum(squares))


def _variance_of_test_set(group: Sequence[Metrics]) -> float:
    """p (1 - p) / n of an accuracy in %; 0 for other metrics. The models of a group see the same n images."""
    if group[0].chance is None or group[0].unit != "%" or "test" not in group[0].datasets:
        return 0.0
    share = math.fsum(metrics.mean() for metrics in group) / len(group) / 100
    return 1e4 * share * (1 - share) / group[0].datasets["test"].samples


def claims_as_text(claims: Sequence[tuple[Claim, dict[str, Verdict]]]) -> str:
    """Each claim in a line, and its verdicts below it."""
    lines = [
        f"{claim.title}\n" + "".join(f"    {key}: {one}\n" for key, one in found.items()) for claim, found in claims
    ]
    note = f"Differences and their standard errors; a claim is resolved beyond {ERRORS} of them.\n"
    return "\n" + "".join(lines) + note if lines else ""
