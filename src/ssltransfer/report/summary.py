"""The summary: what the numbers say, in sentences."""

from __future__ import annotations

from ssltransfer.artifacts.metrics import Metrics
from ssltransfer.report.load_results import Kind, Results
from ssltransfer.report.text import count, listed, number

SENTENCES = 8  # evaluations that the summary speaks of


def summary(results: Results) -> list[str]:
    """What was made, and for each evaluation the best model without labels beside chance and controls."""
    learned = sum(made.kind == "learned" for made in results.models.values())
    controls = len(results.models) - learned
    images = sum(len(entry.index) for entry in results.datasets.values())
    parts = [
        f"{count(len(results.datasets), 'dataset')} with {count(images, 'image')}",
        f"{count(learned, 'model')} learned without labels",
        f"{count(controls, 'control')}",
        f"{count(len(results.clusters), 'clustering')}",
        f"{count(len(results.evaluations), 'evaluation')}",
    ]
    sentences = [f"{listed(parts)}."]
    said = [
        sentence for name, measured in results.evaluations.items() if (sentence := _sentence(results, name, measured))
    ]
    sentences += said[:SENTENCES]
    more = len(results.evaluations) - len(said[:SENTENCES])
    if more:
        sentences.append(f"{count(more, 'evaluation')} {'more ' if said else ''}stand in the tables.")
    return sentences


def _sentence(results: Results, name: str, measured: list[Metrics]) -> str:
    """The best model without labels; empty where there are controls only."""
    learned = [metrics for metrics in measured if results.kind(metrics.model) == "learned"]
    if not learned:
        return ""
    best = max(learned, key=lambda metrics: round(metrics.mean(), 6))
    who = f"the best of {count(len(learned), 'model')}, {best.model}," if len(learned) > 1 else best.model
    text = f"Under {name}, {who} reaches {number(best.mean())} {best.unit}"
    seeds = len(best.seeds)
    if seeds > 1:
        text += f" (mean of {seeds} seeds, deviation {number(best.std())})"
    beside = [
        f"chance {number(best.chance)}" if best.chance is not None else "",
        _beside(results, best, measured, "random", "the best random network"),
        _beside(results, best, measured, "supervised", "the best supervised one"),
    ]
    beside = [phrase for phrase in beside if phrase]
    return f"{text}; {', '.join(beside)}." if beside else f"{text}."


def _beside(results: Results, best: Metrics, measured: list[Metrics], kind: Kind, called: str) -> str:
    """'the best random network 12.0 (3.4 lower)': the control, and how far it is from the model."""
    controls = [metrics.mean() for metrics in measured if results.kind(metrics.model) == kind]
    if not controls:
        return ""
    # Of the numbers as they are shown, so that a reader who subtracts finds the same.
    gap = round(best.mean(), 1) - round(max(controls), 1)
    words = "equal" if not round(gap, 1) else f"{number(abs(gap))} {'lower' if gap > 0 else 'higher'}"
    return f"{called} {number(max(controls))} ({words})"
