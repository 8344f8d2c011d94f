"""What all protocols are given, and what they give back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ssltransfer.artifacts.features import FeatureStore
from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.training.devices import Devices


@dataclass(frozen=True)
class EvalContext:
    """What a protocol works on.

    Attributes:
        spec: protocol and seeds.
        model: manifest of the model.
        train, test: images, with their labels; for protocols that do not train the test images twice.
        folder: work directory, the same after an interruption.
        devices: where it is computed.
        features: those of the training and of the test images, for protocols that read features; likewise.
    """

    spec: EvaluationSpec
    model: Path
    train: Index
    test: Index
    folder: Path
    devices: Devices
    features: tuple[FeatureStore, FeatureStore] | None = None


@dataclass(frozen=True)
class EvalResult:
    """What a protocol found.

    Attributes:
        values: name -> a number for each seed, in the unit that the protocol names for it; one number
            where nothing is drawn.
        chance: what chance reaches for the primary metric.
        details: what the report draws; a function of spec and inputs.
        measured: what varies between equal runs.
    """

    values: dict[str, list[float]]
    chance: float
    details: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Classes:
    """One label a image, numbered alike in both sets.

    Attributes:
        names: the training set's classes.
        train, test: int64, class of each image.
    """

    names: list[str]
    train: np.ndarray
    test: np.ndarray

    @property
    def chance(self) -> float:
        """Percent right of chance that always names the commonest training class."""
        return self.chance_among(1)

    def chance_among(self, names: int) -> float:
        """The same of chance that may name so many classes: always the commonest ones."""
        seen = np.bincount(self.train, minlength=len(self.names))
        return percent(np.isin(self.test, np.argsort(-seen, kind="stable")[:names]).mean())


def classes_of(train: Index, test: Index, names: tuple[str, str]) -> Classes:
    """Labels of both sets, those of the test set renumbered by the names of its classes.

    Args:
        train, test: the sets.
        names: what they are called.

    Raises:
        ArtifactError: a image has no label, the test set has a class of its own, or there is one class alone.
    """
    for index, name in zip((train, test), names, strict=True):
        if (index.labels < 0).any():
            raise ArtifactError(f"{name}: not every image has a class label; name a labeled dataset.")
    number = {name: place for place, name in enumerate(train.classes)}
    present = [test.classes[label] for label in np.unique(test.labels)]
    unknown = [name for name in present if name not in number]
    if unknown:
        raise ArtifactError(
            f"{names[1]}: class {unknown[0]!r} does not stand in the training set {names[0]}; "
            "name two splits of the same classes."
        )
    if len(np.unique(train.labels)) < 2:
        raise ArtifactError(f"{names[0]}: all images have one class, there is nothing to tell apart.")
    renumber = np.array([number.get(name, -1) for name in test.classes], np.int64)
    return Classes(list(train.classes), train.labels.astype(np.int64), renumber[test.labels])


def learning(curve: list[dict[str, float]], name: str) -> dict[str, Any]:
    """A value along a training, and on validation images where it was measured, for the report to draw."""
    series: dict[str, list[list[float]]] = {}
    for label, key in (("training", name), ("validation", f"val_{name}")):
        rows = [row for row in curve if key in row]
        if rows:
            series[label] = [[row["step"] for row in rows], [round(row[key], 4) for row in rows]]
    return {"title": name.replace("_", " "), "x": "step", "y": "", "series": series}


def percent(share: float) -> float:
    """A share as percent, to six digits: the rest is rounding that differs between machines."""
    return round(100 * float(share), 6)


def evenly_spaced(n: int, count: int) -> list[int]:
    """At most `count` of 0..n-1, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, count)).round().astype(int)).tolist()
