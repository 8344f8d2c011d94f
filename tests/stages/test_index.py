"""The index stage: every image is in it or left out with a reason, and bad sets are refused without a result."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.config.base import ConfigError
from ssltransfer.config.formats import Dataset, Folder, ImageFolder, Synthetic, Voc
from ssltransfer.config.formats.base import Holdout
from ssltransfer.data.formats import DatasetListing, LayoutError
from ssltransfer.stages import index as stage


def image(path: Path, seed: int = 0, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")


def bad(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("no image")


def made(spec: Dataset, output: Path, threads: int = 2) -> Index:
    stage.run(spec, output=output, threads=threads)
    return read_index(output)


def refused(spec: Dataset, output: Path, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match) as refusal:
        stage.run(spec, output=output, threads=2)
    assert "\n" not in str(refusal.value)
    assert not output.parent.exists() or not list(output.parent.iterdir())


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out" / "set.parquet"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place in range(8):
        image(tmp_path / "set" / f"c{place % 2}" / f"{place}.png", place, (12 + place, 10))
    return tmp_path / "set"


def test_index_lists_size_class_and_content(root: Path, output: Path) -> None:
    index = made(Folder(root=str(root), labels="folder"), output)
    assert index.paths == [
        "c0/0.png",
        "c0/2.png",
        "c0/4.png",
        "c0/6.png",
        "c1/1.png",
        "c1/3.png",
        "c1/5.png",
        "c1/7.png",
    ]
    assert index.labels.tolist() == [0] * 4 + [1] * 4
    for path, (width, height) in zip(index.paths, index.sizes.tolist(), strict=True):
        with Image.open(root / path) as image:
            assert image.size == (width, height)
    assert len(set(index.digests)) == 8
    assert index.spec == {"format": "folder", "labels": "folder", "root": str(root)}


def test_index_is_independent_of_threads(root: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in range(300):
        image(root / "c2" / f"{place}.png", place)
    for place in range(0, 60, 7):
        bad(root / "c3" / f"{place}.jpg")
        image(root / "c3" / f"{place}.png", place)
    results = []
    for threads in (1, 3, None):
        stage.run(Folder(root=str(root), labels="folder"), output=output, threads=threads)
        results.append((output.read_bytes(), output.with_suffix(".skipped.tsv").read_bytes()))
    assert results[0] == results[1] == results[2]
    assert len(read_index(output).skipped) == 9


def test_index_skips_minority_with_reasons(root: Path, output: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ssltransfer")
    bad(root / "c0" / "text.jpg")
    (root / "c1" / "empty.jpg").touch()
    (root / "c1" / "gone.jpg").symlink_to(root / "nowhere")
    (root / "c1" / "notes.txt").touch()
    index = made(Folder(root=str(root)), output)
    assert len(index) == 8
    assert index.skipped == {
        "c0/text.jpg": "not an image: text",
        "c1/empty.jpg": "empty file",
        "c1/gone.jpg": "cannot be opened: No such file or directory",
        "c1/notes.txt": "not an image's file name",
    }
    lines = output.with_suffix(".skipped.tsv").read_text().splitlines()
    assert lines == ["path\treason", *(f"{path}\t{reason}" for path, reason in index.skipped.items())]
    assert "8 images, 0 classes, 4 files left out" in caplog.text


def test_index_notes_unexpected_decoding(root: Path, output: Path) -> None:
    (root / "c0" / "0.png").rename(root / "c0" / "0.jpg")
    index = made(Folder(root=str(root)), output)
    assert index.notes == {"c0/0.jpg": "content is PNG though the name ends in .jpg"}


def test_index_keeps_and_counts_duplicates(root: Path, output: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ssltransfer")
    (root / "c1" / "copy.png").write_bytes((root / "c0" / "0.png").read_bytes())
    index = made(Folder(root=str(root)), output)
    assert len(index) == 9
    assert "1 images repeat another's content" in caplog.text


def test_index_of_moved_folder_has_equal_fingerprint(root: Path, output: Path) -> None:
    before = made(Folder(root=str(root)), output)
    root.rename(root.with_name("moved"))
    after = made(Folder(root=str(root.with_name("moved"))), output)
    assert after.fingerprint == before.fingerprint
    assert after.root != before.root
    image(root.with_name("moved") / "c0" / "0.png", 99)
    assert made(Folder(root=str(root.with_name("moved"))), output).fingerprint != before.fingerprint


def test_index_resolves_relative_root(root: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    index = made(Folder(root="set"), output)
    assert index.root == Path("set")
    assert index.path(0).is_file()


def test_index_accepts_one_class(root: Path, output: Path) -> None:
    for path in (root / "c1").iterdir():
        path.unlink()
    (root / "c1").rmdir()
    assert made(Folder(root=str(root), labels="folder"), output).classes == ["c0"]


def test_index_error_leaves_no_result(root: Path, output: Path) -> None:
    refused(Folder(root=str(root / "none")), output, LayoutError, "no such folder")
    bad(root / "c0" / "bad.jpg")
    refused(
        Folder(root=str(root), on_corrupt="error"),
        output,
        ArtifactError,
        r"1 of 9 images cannot be read \(the first: c0/bad.jpg: not an image: text\); fix or remove them",
    )
    refused(Folder(root=str(root), max_corrupt_fraction=0.1), output, ArtifactError, "1 of 9 images cannot be read")
    for place in range(8):
        bad(root / "c0" / f"bad {place}.jpg")
    refused(Folder(root=str(root)), output, ArtifactError, "9 of 17 images cannot be read")
    bad(root / "c2" / "bad.jpg")
    refused(
        Folder(root=str(root), labels="folder", max_corrupt_fraction=1),
        output,
        ArtifactError,
        r"none of the 1 images of class 'c2' can be read \(the first: c2/bad.jpg: not an image: text\); fix or remove",
    )
    refused(
        Folder(root=str(root / "c2"), max_corrupt_fraction=1), output, ArtifactError, "1 of 1 images cannot be read"
    )


def test_index_error_keeps_old_index(root: Path, output: Path) -> None:
    before = made(Folder(root=str(root)), output).fingerprint
    bad(root / "c0" / "bad.jpg")
    with pytest.raises(ArtifactError):
        stage.run(Folder(root=str(root), on_corrupt="error"), output=output, threads=1)
    assert read_index(output).fingerprint == before


def test_index_storage_error_is_not_a_corrupt_image(root: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def failing(path: Path, *args: Any, **kw: Any) -> Any:
        if path.name == "3.png":
            raise OSError(5, "Input/output error")
        return opened(path, *args, **kw)

    monkeypatch.setattr(Path, "open", failing)
    refused(Folder(root=str(root)), output, ArtifactError, r"3.png: the storage failed \(Input/output error\)")


def test_index_multi_label(tmp_path: Path, output: Path) -> None:
    index = made(Synthetic(root=str(tmp_path / "world"), subset="voc", split="trainval", num_images=6, size=32), output)
    assert index.multi_label is not None
    assert index.multi_label.shape == (6, 20)
    assert (index.multi_label == 1).any(axis=1).all()
    assert index.labels.tolist() == [-1] * 6


def drawn(counts: dict[str, int], limit: int) -> list[str]:
    paths = [f"{name}/{place}.jpg" for name, count in counts.items() for place in range(count)]
    labels = [place for place, count in enumerate(counts.values()) for _ in range(count)]
    found = stage._subsample(DatasetListing(Path("x"), paths, labels, list(counts)), limit)
    assert found.labels is not None
    assert [found.classes[label] for label in found.labels] == [path.split("/")[0] for path in found.paths]
    assert found.paths == [path for path in paths if path in set(found.paths)]
    return found.paths


def test_limit_is_stratified() -> None:
    counts = {"a": 400, "b": 200, "c": 100, "d": 3}
    for limit in (4, 10, 71, 200, 702):
        taken = Counter(path.split("/")[0] for path in drawn(counts, limit))
        assert sum(taken.values()) == limit
        for name, count in counts.items():
            assert abs(taken[name] - limit * count / 703) < 1 + 1e-9 or taken[name] == 1


def test_limit_subsets_are_nested() -> None:
    counts = {"a": 50, "b": 31, "c": 7}
    parts = [set(drawn(counts, limit)) for limit in range(1, 89)]
    assert all(small < large for small, large in pairwise(parts))


def test_limit_is_stable_under_new_images() -> None:
    before = set(drawn({"a": 500, "b": 500}, 200))
    after = set(drawn({"a": 501, "b": 500}, 200))
    assert len(before & after) >= 198


def test_limit_draw_is_spread_over_names() -> None:
    """Were the first taken, all would be low: the mean of 300 of 0..2999 has a standard error of 47."""
    places = [int(Path(path).stem) for path in drawn({"a": 3000}, 300)]
    assert abs(np.mean(places) - 1499.5) < 4 * 50


def test_limit_below_number_of_classes_is_reported(root: Path, output: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ssltransfer")
    index = made(Folder(root=str(root), labels="folder", limit=1), output)
    assert (len(index), index.classes) == (1, ["c0", "c1"])
    assert "limit 1 leaves 1 classes without an image" in caplog.text
    assert len(made(Folder(root=str(root), limit=100), output)) == 8


def test_limit_keeps_multi_labels_aligned(tmp_path: Path) -> None:
    presence = np.arange(20, dtype=np.int8)[:, None]
    whole = DatasetListing(tmp_path, [f"{place}.jpg" for place in range(20)], classes=["x"], multi_label=presence)
    part = stage._subsample(whole, 7)
    assert part.multi_label is not None
    assert [f"{place}.jpg" for place in part.multi_label[:, 0]] == part.paths


def test_holdout_parts_cover_the_split(root: Path, output: Path) -> None:
    whole = made(Folder(root=str(root), labels="folder"), output)

    def part(name: str, seed: int = 0) -> Index:
        holdout = {"num_images": 3, "part": name, "seed": seed}
        return made(Folder(root=str(root), labels="folder", holdout=holdout), output)

    held, rest = part("val"), part("train")
    assert len(held) == 3 and sorted([*held.paths, *rest.paths]) == sorted(whole.paths)
    assert held.classes == rest.classes == whole.classes
    assert held.num_shared_with(rest) == 0
    assert any(part("val", seed).paths != held.paths for seed in range(1, 5))


def test_holdout_fraction_does_not_move_images(tmp_path: Path) -> None:
    def part(names: range, name: str) -> list[str]:
        listing = DatasetListing(tmp_path, [f"{number}.jpg" for number in names])
        spec = Folder(root=str(tmp_path), holdout=Holdout(fraction=0.2, part=name))
        return stage._apply_filters(listing, spec).paths

    few, many = range(0, 2000, 2), range(2000)
    assert set(part(few, "val")) == set(part(many, "val")) & {f"{number}.jpg" for number in few}
    assert sorted(part(many, "val") + part(many, "train")) == sorted(f"{number}.jpg" for number in many)
    assert abs(len(part(many, "val")) - 400) < 4 * (2000 * 0.2 * 0.8) ** 0.5  # four standard deviations


def test_holdout_needs_one_size() -> None:
    for sizes in ({}, {"num_images": 3, "fraction": 0.1}):
        with pytest.raises(ValidationError, match="give num_images or fraction"):
            Holdout.model_validate({"part": "val", **sizes})


def test_include_and_exclude_lists(root: Path, output: Path, tmp_path: Path) -> None:
    whole = made(Folder(root=str(root)), output)
    names = tmp_path / "names.txt"
    names.write_text(f"{whole.paths[1]}\n{whole.paths[4]}\n")
    only = made(Folder(root=str(root), include=str(names)), output)
    without = made(Folder(root=str(root), exclude=str(names)), output)
    assert only.paths == [whole.paths[1], whole.paths[4]]
    assert without.paths == [path for path in whole.paths if path not in only.paths]
    names.write_text("nobody.png\n")
    for option in ("include", "exclude"):
        spec = Folder(root=str(root), **{option: str(names)})
        with pytest.raises(LayoutError, match=r"1 of its 1 images are not in .* \(the first: nobody.png\)"):
            stage.run(spec, output=output)
    missing = Folder(root=str(root), include=str(tmp_path / "none.txt"))
    with pytest.raises(ConfigError, match="no such file"):
        stage.run(missing, output=output)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("line", ["{}", "{}\t7", "{} 7", "  {}  ", "{}\r"])
def test_lists_may_have_blanks_marks_and_labels(line: str, mark: str, output: Path, tmp_path: Path) -> None:
    """Names are listed by path, by file name, and by file name without suffix, which may end with a number."""
    names = ["a/IMG 1.png", "a/IMG 2.png", "a/IMG.png", "a/plain.png", "a/rest.png"]
    for value, name in enumerate(names):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), value, np.uint8)).save(tmp_path / "p" / name)
    listed = ["a/IMG 1.png", "IMG 2", "plain.png"]
    file = tmp_path / "names.txt"
    file.write_bytes((mark + "\n".join(line.format(name) for name in listed)).encode())
    without = made(Folder(root=str(tmp_path / "p"), exclude=str(file)), output)
    assert without.paths == ["a/IMG.png", "a/rest.png"]
    within = made(Folder(root=str(tmp_path / "p"), include=str(file)), output)
    assert within.paths == ["a/IMG 1.png", "a/IMG 2.png", "a/plain.png"]


def test_exclude_reports_names_that_were_not_found(
    root: Path, output: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ssltransfer")
    whole = made(Folder(root=str(root)), output)
    names = tmp_path / "names.txt"
    names.write_text(f"{whole.paths[1]}\nnobody.png\n")
    made(Folder(root=str(root), exclude=str(names)), output)
    assert f"{names}: 1 of its 2 names were not found (the first: nobody.png)." in caplog.messages
    names.write_bytes("Bär.png\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8 text; save this list as UTF-8"):
        made(Folder(root=str(root), exclude=str(names)), output)


@pytest.mark.real
def test_index_of_real_images(real_data: Path, output: Path) -> None:
    sets: list[tuple[Dataset, int, int]] = [
        (ImageFolder(root=str(real_data / "objects/tiny_imagenet"), split="train"), 4800, 16),
        (ImageFolder(root=str(real_data / "objects/caltech101"), split="val"), 100, 10),
        (ImageFolder(root=str(real_data / "scenes/intel"), split="train"), 1080, 6),
        (ImageFolder(root=str(real_data / "retrieval/cars196"), split="test"), 144, 12),
        (Voc(root=str(real_data / "voc_real"), year="2012", split="trainval"), 87, 20),
        (Voc(root=str(real_data / "voc_coco" / "VOCdevkit"), split="trainval"), 58, 20),
    ]
    for spec, images, classes in sets:
        index = made(spec, output)
        assert (len(index), len(index.classes), len(index.skipped)) == (images, classes, 0)


@pytest.mark.real
def test_index_of_broken_collection(real_data: Path, output: Path) -> None:
    index = made(Folder(root=str(real_data / "broken")), output)
    files = {path.name for path in (real_data / "broken").iterdir()}
    assert set(index.paths) | index.skipped.keys() == files
    assert not set(index.paths) & index.skipped.keys()
    assert {"truncated_half.jpg", "corrupt_middle.jpg", "bad_crc.png", "huge_header.png"} <= index.skipped.keys()
    assert {"gray16.png", "cmyk.jpg", "UPPER.JPEG", "name with space é.jpg"} <= set(index.paths)
