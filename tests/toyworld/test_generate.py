"""`generate`, for every subset: same bytes in any setting, all or nothing, splits without common images."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from toyworld import SUBSETS, generate


def digests(root: Path) -> dict[str, str]:
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob("*"))
        if file.is_file() and ".toyworld" not in file.parts
    }


def image_digests(found: dict[str, str]) -> set[str]:
    return {digest for name, digest in found.items() if name.endswith(".jpg")}


@pytest.mark.parametrize("subset", SUBSETS)
def test_generate_is_deterministic_and_splits_share_no_image(subset: str, tmp_path: Path) -> None:
    first, second = SUBSETS[subset].splits or ("train", "test")
    for root in ("a", "b"):
        generate(subset, tmp_path / root, split=first, num_images=3, size=48, seed=5)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    generate(subset, tmp_path / "a", split=second, num_images=3, size=48, seed=5)
    both, one = digests(tmp_path / "a"), digests(tmp_path / "b")
    assert one.items() <= both.items()
    assert len(image_digests(both)) == 2 * len(image_digests(one)) == 6 * (12 if subset == "clips" else 1)
    generate(subset, tmp_path / "c", split=first, num_images=3, size=48, seed=6)
    assert not image_digests(digests(tmp_path / "c")) & image_digests(both)


def test_generate_is_independent_of_workers_and_set_size(tmp_path: Path) -> None:
    for workers, n in ((1, 70), (2, 70), (3, 40)):
        generate("objects", tmp_path / f"{workers}", split="train", num_images=n, size=32, workers=workers)
    one, two, three = (digests(tmp_path / f"{workers}") for workers in (1, 2, 3))
    assert one == two
    assert len(three) == 40
    assert three.items() <= one.items()


def test_generate_keeps_an_existing_split_and_refuses_other_parameters(tmp_path: Path) -> None:
    generate("objects", tmp_path, split="train", num_images=2, size=32)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.jpg")}
    generate("objects", tmp_path, split="train", num_images=2, size=32, workers=2)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.jpg")} == before
    with pytest.raises(ValueError, match=r"generated with other parameters \(num_images 2 instead of 3\)"):
        generate("objects", tmp_path, split="train", num_images=3, size=32)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="mine exists and does not belong to split 'mine'"):
        generate("objects", tmp_path, split="mine", num_images=2, size=32)


def test_generate_does_not_touch_files_of_another_origin(tmp_path: Path) -> None:
    own = tmp_path / "VOCdevkit" / "VOC2007" / "JPEGImages" / "000001.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"somebody else's image")
    with pytest.raises(ValueError, match="VOCdevkit exists and does not belong"):
        generate("voc", tmp_path, split="trainval", num_images=1, size=32)
    assert [p for p in tmp_path.rglob("*") if p.is_file() and ".toyworld" not in p.parts] == [own]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subset": "object"}, "unknown subset 'object'"),
        ({"subset": "voc", "split": "train"}, "no split 'train'; choose one of trainval, test"),
        ({"split": "../up"}, "cannot be the name of a split"),
        ({"split": ".toyworld"}, "cannot be the name of a split"),
        ({"num_images": 0}, "num_images is 0"),
        ({"size": 8}, "size is 8"),
        ({"workers": 0}, "workers is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_generate_refuses_invalid_arguments(arguments: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        generate(**({"subset": "objects", "root": tmp_path, "split": "train", "num_images": 1} | arguments))
    assert not list(tmp_path.iterdir())


def test_generate_leaves_nothing_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = SUBSETS["objects"]

    def full_disk(folder: Path, split: str, number: int, size: int, rng: np.random.Generator) -> None:
        objects.write(folder, split, number, size, rng)
        if number == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setitem(SUBSETS, "objects", replace(objects, write=full_disk))
    with pytest.raises(OSError, match="No space"):
        generate("objects", tmp_path, split="train", num_images=6, size=32)
    assert digests(tmp_path) == {}
    assert not (tmp_path / "train").exists()
    monkeypatch.undo()
    generate("objects", tmp_path, split="train", num_images=6, size=32)
    assert len(digests(tmp_path)) == 6


def test_generate_leaves_nothing_and_no_workers_after_a_kill(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom toyworld import generate\n"
        f"if __name__ == '__main__':\n    generate('objects', Path({str(tmp_path / 'w')!r}), "
        "split='train', num_images=100000, size=32, workers=2)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)])
    part = tmp_path / "w" / ".toyworld" / "train.part"
    while process.poll() is None and not list(part.rglob("*.jpg")):
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    assert process.wait() == -9
    assert not psutil.wait_procs(workers, timeout=60)[1]
    assert not (tmp_path / "w" / "train").exists()
    assert not (tmp_path / "w" / ".toyworld" / "train.json").exists()
    generate("objects", tmp_path / "w", split="train", num_images=4, size=32)
    assert len(digests(tmp_path / "w")) == 4
    assert not part.exists()


def test_generate_completes_publishing_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate("voc", tmp_path / "whole", split="trainval", num_images=2, size=32)
    generate("voc", tmp_path / "whole", split="test", num_images=4, size=32)
    generate("voc", tmp_path / "cut", split="trainval", num_images=2, size=32)
    rename, left = Path.replace, [3]

    def cut(self: Path, target: Path) -> Path:
        if ".part" in str(self):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        generate("voc", tmp_path / "cut", split="test", num_images=4, size=32)
    monkeypatch.undo()
    lists = tmp_path / "cut" / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    assert not (lists / "test.txt").exists()
    generate("voc", tmp_path / "cut", split="test", num_images=4, size=32)
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    assert json.loads((tmp_path / "cut" / ".toyworld" / "test.json").read_text())["num_images"] == 4
