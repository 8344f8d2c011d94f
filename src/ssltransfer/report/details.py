"""What a protocol left in `details`, for whichever of the known keys are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssltransfer.artifacts.metrics import Metrics
from ssltransfer.report.load_results import Images, Results
from ssltransfer.report.thumbnails import strip

EXAMPLES = 4  # test images whose neighbors are shown, of each model
CLASSES = 30  # above which only the best and the worst are shown
EXTREMES = 5
SIDE = 48
# Drawn elsewhere, or too long for a line.
_DRAWN = {"per_class", "confusion", "classes", "examples", "curves", "layers", "drawn", "lines"}


def per_class(measured: Sequence[Metrics]) -> list[tuple[str, list[float | None]]]:
    """(class, value of each model) where the protocol left one value a class, for up to CLASSES classes."""
    tables = [_per_class(metrics) for metrics in measured]
    names = list(dict.fromkeys(name for table in tables for name in table))
    if not names or len(names) > CLASSES:
        return []
    return [(name, [table.get(name) for table in tables]) for name in names]


def extremes(metrics: Metrics) -> dict[str, list[tuple[str, float]]]:
    """The best and the worst classes, where there are too many for a table."""
    values = {name: value for name, value in _per_class(metrics).items() if value is not None}
    if len(values) <= CLASSES:
        return {}
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    return {"best classes": ordered[:EXTREMES], "worst classes": ordered[::-1][:EXTREMES]}


def _per_class(metrics: Metrics) -> dict[str, float | None]:
    found = metrics.details.get("per_class")
    return found if isinstance(found, dict) else {}


def neighbors(results: Results, metrics: Metrics) -> list[dict[str, Any]]:
    """Some test images with those nearest to them in the gallery: a strip and the classes in words."""
    test = _images(results, metrics, "test")
    train = _images(results, metrics, "train" if "train" in metrics.datasets else "test")
    examples = metrics.details.get("examples")
    if test is None or train is None or not isinstance(examples, list):
        return []
    found = []
    for example in examples[:: max(1, len(examples) // EXAMPLES)][:EXAMPLES]:
        near = example["neighbors"]
        paths = [test.index.root / example["path"], *(train.index.root / one["path"] for one in near)]
        found.append(
            {
                "uri": strip(paths, SIDE, lead=6),
                "true": example["class"],
                "near": [(one["class"], one["class"] == example["class"], one["similarity"]) for one in near],
            }
        )
    return found


def _images(results: Results, metrics: Metrics, role: str) -> Images | None:
    return results.datasets.get(str(metrics.datasets.get(role, {}).get("name")))


def drawn(metrics: Metrics) -> list[dict[str, str]]:
    """Images that the protocol drew itself: {title, uri} each, the uri holding the image."""
    found = metrics.details.get("drawn")
    return [one for one in found if one["uri"].startswith("data:image/")] if isinstance(found, list) else []


def other(metrics: Metrics) -> list[tuple[str, str]]:
    """What is short enough to be written out and is not shown otherwise."""
    found = []
    for key, value in sorted(metrics.details.items()):
        if key not in _DRAWN and isinstance(value, str | int | float | bool):
            found.append((key.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value)))
    return found
