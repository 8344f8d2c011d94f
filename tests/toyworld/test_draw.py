"""What `draw` promises of every set: the same bytes anyhow, all of it or nothing, splits that share no picture."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from torchvision.datasets import ImageFolder

from toyworld import SETS, draw, objects, retrieval, scenes

SPLITS = {"voc": ("trainval", "test")}


def digests(root: Path) -> dict[str, str]:
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob("*"))
        if file.is_file() and ".world" not in file.parts
    }


def pixels(found: dict[str, str]) -> set[str]:
    return {digest for name, digest in found.items() if name.endswith(".jpg")}


@pytest.mark.parametrize("name", SETS)
def test_same_again_and_splits_share_no_picture(name: str, tmp_path: Path) -> None:
    first, second = SPLITS.get(name, ("train", "test"))
    for root in ("a", "b"):
        draw(name, tmp_path / root, split=first, n=3, size=48, seed=5)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    draw(name, tmp_path / "a", split=second, n=3, size=48, seed=5)
    both, one = digests(tmp_path / "a"), digests(tmp_path / "b")
    assert one.items() <= both.items()
    assert len(pixels(both)) == 2 * len(pixels(one)) == 6 * (12 if name == "clips" else 1)
    draw(name, tmp_path / "c", split=first, n=3, size=48, seed=6)
    assert not pixels(digests(tmp_path / "c")) & pixels(both)


def test_any_number_of_workers_and_a_longer_set_begins_with_the_shorter(tmp_path: Path) -> None:
    for workers, n in ((1, 70), (2, 70), (3, 40)):
        draw("objects", tmp_path / f"{workers}", split="train", n=n, size=32, workers=workers)
    one, two, three = (digests(tmp_path / f"{workers}") for workers in (1, 2, 3))
    assert one == two
    assert len(three) == 40
    assert three.items() <= one.items()


def test_class_folders(tmp_path: Path) -> None:
    for name, classes, n in (("objects", objects.CLASSES, 24), ("scenes", scenes.CLASSES, 16)):
        draw(name, tmp_path / name, split="train", n=n, size=32)
        found = ImageFolder(str(tmp_path / name / "train"))
        assert tuple(found.classes) == tuple(sorted(classes))
        assert sorted(found.targets) == sorted(2 * list(range(len(classes))))
        assert found[0][0].size == (32, 32)


def test_retrieval_classes_are_disjoint_and_differ(tmp_path: Path) -> None:
    for split in ("train", "test"):
        draw("retrieval", tmp_path, split=split, n=24, size=32)
    train, test = (set(ImageFolder(str(tmp_path / split)).classes) for split in ("train", "test"))
    assert len(train) == len(test) == 24
    assert not train & test
    forms = [tuple(vars(form).values()) for form in retrieval.forms()]
    assert min(sum(a != b for a, b in zip(x, y, strict=True)) for x in forms for y in forms if x != y) >= 3


def test_there_already(tmp_path: Path) -> None:
    draw("objects", tmp_path, split="train", n=2, size=32)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.jpg")}
    draw("objects", tmp_path, split="train", n=2, size=32, workers=2)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.jpg")} == before
    with pytest.raises(ValueError, match=r"drawn with other parameters \(n 2 instead of 3\)"):
        draw("objects", tmp_path, split="train", n=3, size=32)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="mine is there already and was not drawn"):
        draw("objects", tmp_path, split="mine", n=2, size=32)


def test_a_kit_of_others_is_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "VOCdevkit" / "VOC2007" / "JPEGImages" / "000001.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"a picture of somebody else")
    with pytest.raises(ValueError, match="VOCdevkit is there already"):
        draw("voc", tmp_path, split="trainval", n=1, size=32)
    assert [p for p in tmp_path.rglob("*") if p.is_file() and ".world" not in p.parts] == [own]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"set_name": "object"}, "no set is called 'object'"),
        ({"set_name": "voc", "split": "train"}, "no split 'train'; choose one of trainval, test"),
        ({"split": "../up"}, "cannot be the name of a split"),
        ({"split": ".world"}, "cannot be the name of a split"),
        ({"n": 0}, "n is 0"),
        ({"size": 8}, "size is 8"),
        ({"workers": 0}, "workers is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str, tmp_path: Path) -> None:
    given = {"set_name": "objects", "split": "train", "n": 1} | arguments
    with pytest.raises(ValueError, match=message):
        draw(given.pop("set_name"), tmp_path, **given)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = objects.write

    def full_disk(folder: Path, split: str, number: int, size: int, seed: int) -> None:
        whole(folder, split, number, size, seed)
        if number == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(objects, "write", full_disk)
    with pytest.raises(OSError, match="No space"):
        draw("objects", tmp_path, split="train", n=6, size=32)
    assert digests(tmp_path) == {}
    assert not (tmp_path / "train").exists()
    monkeypatch.undo()
    draw("objects", tmp_path, split="train", n=6, size=32)
    assert len(digests(tmp_path)) == 6


def test_a_kill_leaves_nothing_and_no_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom toyworld import draw\n"
        f"if __name__ == '__main__':\n    draw('objects', Path({str(tmp_path / 'w')!r}), "
        "split='train', n=100000, size=32, workers=2)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)])
    drawing = tmp_path / "w" / ".world" / "train.part"
    while process.poll() is None and not list(drawing.rglob("*.jpg")):
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    assert process.wait() == -9
    assert not psutil.wait_procs(workers, timeout=60)[1]
    assert not (tmp_path / "w" / "train").exists()
    assert not (tmp_path / "w" / ".world" / "train.json").exists()
    draw("objects", tmp_path / "w", split="train", n=4, size=32)
    assert len(digests(tmp_path / "w")) == 4
    assert not drawing.exists()


def test_a_kill_while_renaming_is_finished_by_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toyworld import easel

    draw("voc", tmp_path / "whole", split="trainval", n=2, size=32)
    draw("voc", tmp_path / "whole", split="test", n=4, size=32)
    draw("voc", tmp_path / "cut", split="trainval", n=2, size=32)
    replace, left = Path.replace, [3]

    def cut(self: Path, target: Path) -> Path:
        if ".part" in str(self):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(easel.Path, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        draw("voc", tmp_path / "cut", split="test", n=4, size=32)
    monkeypatch.undo()
    lists = tmp_path / "cut" / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    assert not (lists / "test.txt").exists()
    draw("voc", tmp_path / "cut", split="test", n=4, size=32)
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    assert json.loads((tmp_path / "cut" / ".world" / "test.json").read_text())["n"] == 4
