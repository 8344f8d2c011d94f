"""Inputs and results of an evaluation, and the registry of protocols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ssltransfer.artifacts.features import FeatureStore
from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index, labels_by_name
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.protocols import ProtocolOptions
from ssltransfer.registry import Registry
from ssltransfer.training.devices import Devices

OptionsT = TypeVar("OptionsT", bound=ProtocolOptions)


@dataclass(frozen=True)
class EvalContext:
    """Inputs of an evaluation."""

    spec: EvaluationSpec
    model: Path  # manifest
    train: Index  # the test images if the protocol needs no training set
    test: Index
    folder: Path  # work directory, the same after an interruption
    devices: Devices
    features: tuple[FeatureStore, ...] = ()  # of training and test images, if the protocol reads them

    def options(self, kind: type[OptionsT]) -> OptionsT:
        """The options of the protocol, typed."""
        assert isinstance(self.spec.protocol, kind)
        return self.spec.protocol

    def classes(self) -> Classes:
        """Class labels of both sets; errors are those of `classes_of`."""
        return classes_of(self.train, self.test, (self.spec.train or self.spec.test, self.spec.test))

    def with_classes(self) -> tuple[EvalContext, Classes]:
        """The context with equally numbered labels in both indexes, and these labels."""
        classes = self.classes()
        train = self.train.with_labels(classes.train, classes.names)
        test = self.test.with_labels(classes.test, classes.names)
        return replace(self, train=train, test=test), classes


@dataclass(frozen=True)
class EvalResult:
    """Result of an evaluation."""

    values: dict[str, list[float]]  # metric -> one number per seed, or a single number if nothing is random
    chance: float  # of the primary metric
    details: dict[str, Any] = field(default_factory=dict)  # what the report draws; a function of spec and inputs
    measured: dict[str, Any] = field(default_factory=dict)  # what varies between equal runs, such as seconds


PROTOCOLS: Registry[Callable[[EvalContext], EvalResult]] = Registry("ssltransfer.protocols")


@dataclass(frozen=True)
class Classes:
    """Class labels of both sets, int64 (N,) each, with the numbers and names of the training set's classes."""

    names: list[str]
    train: np.ndarray
    test: np.ndarray

    def chance(self, k: int = 1) -> float:
        """Top-k accuracy in percent of always predicting the k most frequent training classes."""
        counts = np.bincount(self.train, minlength=len(self.names))
        return percent(np.isin(self.test, np.argsort(-counts, kind="stable")[:k]).mean())


def classes_of(train: Index, test: Index, names: tuple[str, str]) -> Classes:
    """Labels of two sets with these names; the classes of the test set are renumbered by class name.

    Raises:
        ArtifactError: an image has no label, a test class is not in the training set, or there is only one class.
    """
    renumbered = labels_by_name(train, test, names)
    if len(np.unique(train.labels)) < 2:
        raise ArtifactError(f"{names[0]}: all images have the same class; name a set with several classes.")
    return Classes(list(train.classes), train.labels.astype(np.int64), renumbered)


def check_same_classes(context: EvalContext) -> None:
    """Raise `ArtifactError` if the classes of both sets differ."""
    if context.train.classes != context.test.classes:
        raise ArtifactError(
            f"{context.spec.test}: its classes are not those of {context.spec.train}; name two splits of one set."
        )


def curve_figure(curve: list[dict[str, float]], name: str, title: str = "", y: str = "") -> dict[str, Any]:
    """A column of a learning curve, with its validation values if measured, as a figure of the report."""
    series: dict[str, list[list[float]]] = {}
    for label, key in (("training", name), ("validation", f"val_{name}")):
        rows = [row for row in curve if key in row]
        if rows:
            series[label] = [[int(row["step"]) for row in rows], [round(row[key], 4) for row in rows]]
    return {"title": title or name.replace("_", " "), "x": "step", "y": y, "series": series}


def percent(fraction: float) -> float:
    """A fraction as percent, to six digits, because further digits differ between machines."""
    return round(100 * float(fraction), 6)


def percent_or_none(names: list[str], fractions: list[float | None]) -> dict[str, float | None]:
    """Name -> percent, None where there is no value."""
    return {name: None if one is None else percent(one) for name, one in zip(names, fractions, strict=True)}


def evenly_spaced(n: int, count: int) -> list[int]:
    """At most `count` of 0..n-1, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, count)).round().astype(int)).tolist()
