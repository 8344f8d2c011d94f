"""Values of options that a schema allows: what the bounds, names and defaults of a field say."""

from __future__ import annotations

import math
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

LARGE = 64  # instead of no upper bound, and of bounds that would need gigabytes


def allowed_values(options: type[BaseModel]) -> list[tuple[str, Any]]:
    """(key, value) of every option: its smallest and largest number, every name, both booleans, None if it may be."""
    return [
        (key, value)
        for key, field in options.model_fields.items()
        if key != "name"
        for value in _values(field.annotation, field.metadata)
    ]


def _values(annotation: Any, metadata: list[Any]) -> list[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        of_field = [part for one in arguments[1:] for part in (one.metadata if isinstance(one, FieldInfo) else [one])]
        return _values(arguments[0], of_field)
    if origin is Literal:
        return list(arguments)
    if origin in (Union, UnionType):
        return [value for one in arguments for value in _values(one, metadata)]
    if annotation is NoneType:
        return [None]
    if annotation is bool:
        return [False, True]
    if annotation in (int, float):
        return _numbers(annotation, metadata)
    if origin is tuple and arguments[-1] is Ellipsis:
        return [[], *([value] for value in _values(arguments[0], []))]
    return []  # texts, files and options of their own


def _numbers(kind: type[int] | type[float], metadata: list[Any]) -> list[float]:
    low, high = (0, LARGE) if kind is int else (0.0, 2.0)
    for bound in metadata:
        if isinstance(bound, Ge):
            low = bound.ge  # type: ignore[assignment]
        elif isinstance(bound, Gt):
            low = bound.gt + (1 if kind is int else 1e-3)  # type: ignore[operator]
        elif isinstance(bound, Le):
            high = bound.le  # type: ignore[assignment]
        elif isinstance(bound, Lt):
            high = bound.lt - (1 if kind is int else 1e-3)  # type: ignore[operator]
    return [low, min(max(high, low), max(LARGE, low))] if math.isfinite(high) else [low]
