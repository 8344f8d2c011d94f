from __future__ import annotations

import pickle

import pyarrow as pa
import pytest

from ssltransfer.artifacts import strings
from ssltransfer.artifacts.strings import Strings

NAMES = ["a/1.jpg", "", "ä/ü\n.png", *(f"b/{number}" for number in range(10))]


def test_strings_are_a_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strings, "PIECE", 4)
    ours = Strings(pa.chunked_array([NAMES[:5], NAMES[5:]]))
    assert len(ours) == len(NAMES) and list(ours) == NAMES
    assert [ours[place] for place in (0, 2, -1)] == [NAMES[0], NAMES[2], NAMES[-1]]
    assert ours[2:7] == NAMES[2:7] and ours[::3] == NAMES[::3]
    assert ours == NAMES and ours != NAMES[1:] and ours != [*NAMES[:-1], "c"]
    assert "b/3" in ours and ours.index("b/3") == NAMES.index("b/3")
    assert pickle.loads(pickle.dumps(ours)) == NAMES
    with pytest.raises(IndexError):
        ours[len(NAMES)]
