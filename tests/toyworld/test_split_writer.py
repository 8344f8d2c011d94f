"""Random generators and the lock of a split; `test_generate.py` tests the rest."""

from __future__ import annotations

import threading
from pathlib import Path

from toyworld.split_writer import make_rng, split_writer


def test_make_rng_depends_on_seed_and_key() -> None:
    keys: list[tuple[int, str | int, str | int]] = [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1), (0, 1, "a")]
    assert len({make_rng(key[0], *key[1:]).random() for key in keys}) == len(keys)
    assert make_rng(0, "a", 1).random() == make_rng(0, "a", 1).random()


def test_split_writer_serializes_writers(tmp_path: Path) -> None:
    second: list[Path | None] = []

    def write_again() -> None:
        with split_writer(tmp_path, "train", {"subset": "x", "split": "train"}) as folder:
            second.append(folder)

    thread = threading.Thread(target=write_again)
    with split_writer(tmp_path, "train", {"subset": "x", "split": "train"}) as folder:
        assert folder is not None
        thread.start()
        thread.join(0.3)
        assert not second
        (folder / "file").write_text("content")
    thread.join(30)
    assert second == [None]  # the first one has completed the split
    assert (tmp_path / "file").read_text() == "content"
