"""The summary in sentences."""

from ssltransfer.artifacts.metrics import Metrics
from ssltransfer.report.load_results import Kind, Results
from ssltransfer.report.text import count, join_words, number

MAX_SENTENCES = 8  # evaluations that the summary describes
UNRANKED = "imported or of an imported or supervised teacher"


def summary(results: Results) -> list[str]:
    """Counts, and for each evaluation the best model without labels beside chance level and baselines."""
    kinds = [results.kind(model) for model in results.models]
    learned, unranked = kinds.count("learned"), kinds.count("unranked")
    images = sum(len(record.content) for record in results.datasets.values())
    parts = [
        f"{count(len(results.datasets), 'dataset')} with {count(images, 'image')}",
        f"{count(learned, 'model')} trained without labels",
        *([f"{count(unranked, 'model')} {UNRANKED}"] if unranked else []),
        count(len(results.models) - learned - unranked, "baseline"),
        count(len(results.clusters), "clustering"),
        count(len(results.evaluations), "evaluation"),
    ]
    sentences = [text for name, measured in results.evaluations.items() if (text := _sentence(results, name, measured))]
    rest = len(results.evaluations) - len(sentences[:MAX_SENTENCES])
    more = [f"The tables show {count(rest, 'more evaluation' if sentences else 'evaluation')}."] if rest else []
    return [f"{join_words(parts)}.", *sentences[:MAX_SENTENCES], *more]


def _sentence(results: Results, name: str, measured: list[Metrics]) -> str:
    """The best model without labels, else of those that are not ranked; empty if there are only baselines."""
    kinds = {metrics.model: results.kind(metrics.model) for metrics in measured}
    group = "learned" if "learned" in kinds.values() else "unranked"
    learned = [metrics for metrics in measured if kinds[metrics.model] == group]
    if not learned:
        return ""
    best = max(learned, key=lambda metrics: round(metrics.mean(), 6))
    model = f"the best of {count(len(learned), 'model')}, {best.model}," if len(learned) > 1 else best.model
    text = f"Under {name}, {model} reaches {number(best.mean())} {best.unit}"
    if len(best.seeds) > 1:
        text += f" (mean of {len(best.seeds)} seeds, standard deviation {number(best.std())})"
    others = [
        f"chance level {number(best.chance)}" if best.chance is not None else "",
        _compare(results, best, measured, "random", "the best random network"),
        _compare(results, best, measured, "supervised", "the best supervised network"),
        _compare(results, best, measured, "unranked", f"the best network {UNRANKED}") if group == "learned" else "",
    ]
    others = [phrase for phrase in others if phrase]
    return f"{text}, compared with {join_words(others)}." if others else f"{text}."


def _compare(results: Results, best: Metrics, measured: list[Metrics], kind: Kind, title: str) -> str:
    """'the best random network 12.0 (3.4 lower)': the best of a kind and its distance from the model."""
    values = [metrics.mean() for metrics in measured if results.kind(metrics.model) == kind]
    if not values:
        return ""
    # From the rounded numbers, so that a reader who subtracts finds the same.
    gap = round(best.mean(), 1) - round(max(values), 1)
    words = "equal" if not round(gap, 1) else f"{number(abs(gap))} {'lower' if gap > 0 else 'higher'}"
    return f"{title} {number(max(values))} ({words})"
