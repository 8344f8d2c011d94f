"""The summary: what the numbers say, in sentences."""

from __future__ import annotations

from ssltransfer.artefacts.metrics import Metrics
from ssltransfer.stages.report.gather import Kind, Results
from ssltransfer.stages.report.text import count, listed, number

SENTENCES = 8  # evaluations that the summary speaks of


def summary(results: Results) -> list[str]:
    """What was made, and for each evaluation the best model without labels beside chance and controls."""
    learned = sum(made.kind == "learned" for made in results.models.values())
    controls = len(results.models) - learned
    pictures = sum(len(entry.index) for entry in results.datasets.values())
    parts = [
        f"{count(len(results.datasets), 'dataset')} with {count(pictures, 'picture')}",
        f"{count(learned, 'model')} learned without labels",
        f"{count(controls, 'control')}",
        f"{count(len(results.clusters), 'clustering')}",
        f"{count(len(results.evaluations), 'evaluation')}",
    ]
    sentences = [f"{listed(parts)}."]
    evaluations = list(results.evaluations.items())
    sentences += [_sentence(results, name, measured) for name, measured in evaluations[:SENTENCES]]
    if len(evaluations) > SENTENCES:
        sentences.append(f"{count(len(evaluations) - SENTENCES, 'evaluation')} more stand in the tables.")
    return sentences


def _sentence(results: Results, name: str, measured: list[Metrics]) -> str:
    learned = [metrics for metrics in measured if results.kind(metrics.model) == "learned"]
    if not learned:
        return f"Under {name} there are controls only."
    best = max(learned, key=lambda metrics: round(metrics.mean(), 6))
    unit = "" if best.unit == "%" else f" {best.unit}"
    value = f"{number(best.mean())}{' %' if best.unit == '%' else unit}"
    who = f"the best of {count(len(learned), 'model')}, {best.model}, reaches" if len(learned) > 1 else best.model
    text = f"Under {name}, {who} {value}" if len(learned) > 1 else f"Under {name}, {who} reaches {value}"
    seeds = len(best.seeds)
    if seeds > 1:
        text += f" (mean of {seeds} seeds, deviation {number(best.spread())})"
    beside = [
        phrase
        for kind, called in (("random", "the best random network"), ("supervised", "the best supervised one"))
        if (phrase := _beside(results, best, measured, kind, called))  # type: ignore[arg-type]
    ]
    if best.chance is not None:
        beside.insert(0, f"a guess {number(best.chance)}")
    return f"{text}; {', '.join(beside)}." if beside else f"{text}."


def _beside(results: Results, best: Metrics, measured: list[Metrics], kind: Kind, called: str) -> str:
    """'the best random network 12.0 (+3.4)': the control, and how far the model is above it."""
    controls = [metrics.mean() for metrics in measured if results.kind(metrics.model) == kind]
    if not controls:
        return ""
    gap = best.mean() - max(controls)
    words = "equal" if not round(gap, 1) else f"{number(abs(gap))} {'lower' if gap > 0 else 'higher'}"
    return f"{called} {number(max(controls))} ({words})"
