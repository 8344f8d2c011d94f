"""Millions of strings in one piece of memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import pyarrow as pa
import pyarrow.compute as pc

PIECE = 1 << 16


class Strings(Sequence[str]):
    """Strings of a column.

    Python strings take twice the memory, and again in each loader process, because it counts references to them.

    Args:
        column: of strings, without nulls.
    """

    def __init__(self, column: pa.ChunkedArray | pa.Array):
        found = column.cast(pa.large_string())
        self._values: pa.Array = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        found: str | list[str] = (
            self._values[place].to_pylist() if isinstance(place, slice) else self._values[int(place)].as_py()
        )
        return found

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """Position of the first such string.

        Raises:
            ValueError: there is none.
        """
        found: int = pc.index(self._values[start:stop], value).as_py()
        if found < 0:
            raise ValueError(f"{value!r} is not in the column")
        return start + found

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), PIECE):
            yield from self._values.slice(start, PIECE).to_pylist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]
