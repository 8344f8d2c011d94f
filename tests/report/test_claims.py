"""Claims: differences, their standard errors and the verdicts."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from ssltransfer.config.entities import Claim, Report
from ssltransfer.report.claims import build_claims, claims_as_text, decide
from ssltransfer.report.load_results import load_results

BETTER, NOT_WORSE, CLOSE = {"better_than": "b"}, {"not_worse_than": "b"}, {"close_to": "b", "margin": 1.0}


def claim(**relation: Any) -> Claim:
    return Claim(**{"title": "a beats b", "columns": ("e",), "models": "a-s*", **relation})


@pytest.mark.parametrize(
    ("relation", "difference", "verdict"),
    [
        (BETTER, 1.1, "yes"),
        (BETTER, 0.9, "not resolved"),
        (BETTER, -0.9, "not resolved"),
        (BETTER, -1.1, "no"),
        (NOT_WORSE, 0.0, "yes"),
        (NOT_WORSE, -0.9, "not resolved"),
        (NOT_WORSE, -1.1, "no"),
        (CLOSE, -1.0, "yes"),
        (CLOSE, 1.9, "not resolved"),
        (CLOSE, -2.1, "no"),
    ],
)
def test_claim_is_decided_beyond_two_standard_errors(relation: dict[str, Any], difference: float, verdict: str) -> None:
    assert decide(claim(**relation), difference, 0.5) == verdict


def test_claim_compares_means_with_the_errors_of_seeds_and_test_set(chain) -> None:
    chain.dataset("d", classes=["a", "b"])
    chain.dataset("t", 15, classes=["a", "b"])
    for model, value in (("a-s0", 60.0), ("a-s1", 64.0), ("b", 50.0)):
        chain.model(model, "pretext", {"task": {"name": "rotation"}, "data": "d"}, trained=False)
        chain.measure("e", model, {"accuracy": [value]}, chance=10.0)
    found = load_results(**chain.inputs)
    claims = build_claims(Report(claims=(claim(better_than="b"), claim(better_than="c"))), found)
    verdict = claims[0][1]["e"]
    assert verdict.difference == 12.0
    of_test_set = 1e4 * (0.62 * 0.38 + 0.5 * 0.5) / 15
    assert verdict.error == pytest.approx(math.sqrt(8 / 2 + of_test_set))
    text = claims_as_text(claims)
    assert f"a beats b\n    e: {verdict}\n" in text and "+12.0 ± " in text and "    e: –\n" in text


def test_report_shows_claims(chain) -> None:
    chain.dataset("d", classes=["a", "b"])
    for model, value in (("a-s0", 60.0), ("b", 50.0)):
        chain.model(model, "pretext", {"task": {"name": "rotation"}, "data": "d"}, trained=False)
        chain.measure("e", model, {"accuracy": [value]}, chance=10.0)
    output = chain.report(Report(claims=(claim(better_than="b"),)))
    assert '<h2 id="claims">Claims</h2>' in output.read_text("utf-8")
    assert "a beats b" in output.with_name("summary.txt").read_text("utf-8")


@pytest.mark.parametrize("relation", [{}, {**BETTER, **NOT_WORSE}, {"close_to": "b"}, {**BETTER, "margin": 1.0}])
def test_claim_has_one_relation(relation: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="claim 'a beats b'"):
        claim(**relation)
