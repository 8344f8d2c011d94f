"""Boxes, masks and depth: read as they were published, and every bad one named."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.config.formats import Synthetic
from ssltransfer.data.formats.voc import CLASSES
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.data.targets import VOID, Boxes, CorruptTargetError, check_target, read_target
from ssltransfer.data.transforms import Transform
from ssltransfer.stages.index import run


def indexed(folder: Path, kind: str, n: int = 4, **options: object) -> Index:
    spec = Synthetic(
        subset="rgbd" if kind == "depth" else "voc",
        split="test",
        num_images=n,
        size=48,
        targets=kind,
        root=str(folder / "world"),
        **options,
    )
    run(spec, output=folder / f"{kind}.parquet", threads=1)
    return read_index(folder / f"{kind}.parquet")


def test_boxes_are_extents_of_masks(tmp_path: Path) -> None:
    boxes, masks = indexed(tmp_path, "boxes"), indexed(tmp_path, "masks")
    assert boxes.paths == masks.paths and boxes.fingerprint != masks.fingerprint
    for sample in range(len(boxes)):
        found, mask = read_target(boxes, sample), read_target(masks, sample)
        assert isinstance(found, Boxes) and isinstance(mask, np.ndarray)
        assert mask.shape == tuple(boxes.sizes[sample][::-1])
        numbers = np.asarray(Image.open(boxes.root / f"SegmentationObject/{Path(boxes.paths[sample]).stem}.png"))
        things = [number for number in np.unique(numbers) if number not in (0, VOID)]
        assert len(things) == len(found.corners)
        extents = set()
        for number in things:
            rows, columns = np.nonzero(numbers == number)
            extents.add((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, mask[rows[0], columns[0]] - 1))
        said = zip(found.corners.tolist(), found.classes.tolist(), strict=True)
        assert extents == {(*map(int, corners), kind) for corners, kind in said}


def test_read_depth_is_in_meters(tmp_path: Path) -> None:
    index = indexed(tmp_path, "depth")
    depth = read_target(index, 1)
    assert isinstance(depth, np.ndarray) and depth.dtype == np.float32
    stored = np.asarray(Image.open(index.root / index.targets.paths[1]))  # type: ignore[union-attr]
    assert np.allclose(depth, stored / 1000, atol=1e-6)
    assert 0.3 < np.median(depth[depth > 0]) < 8


def test_changed_mask_changes_fingerprint(tmp_path: Path) -> None:
    before = indexed(tmp_path, "masks")
    file = before.root / before.targets.paths[2]  # type: ignore[union-attr]
    mask = np.asarray(Image.open(file)).copy()
    mask[0, 0] = 5
    Image.fromarray(mask).save(file)
    assert indexed(tmp_path, "masks").fingerprint != before.fingerprint


def test_subset_keeps_targets(tmp_path: Path) -> None:
    whole = indexed(tmp_path, "boxes", n=6)
    part = whole.subset(np.array([4, 1]))
    assert [Path(path).stem for path in part.targets.paths] == [Path(path).stem for path in part.paths]  # type: ignore[union-attr]
    few = indexed(tmp_path, "boxes", n=6, limit=3)
    assert len(few) == len(few.targets.paths) == len(few.targets.digests) == 3  # type: ignore[union-attr]


def voc(folder: Path, *boxes: tuple[object, ...], name: str = "cat") -> Path:
    sides = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, box, strict=True))
        + "</bndbox></object>"
        for box in boxes
    )
    (folder / "a.xml").write_text(f"<annotation>{objects}</annotation>")
    return folder / "a.xml"


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ((1, 1, 21, 10), r"box 1, 1, 21, 10 .* is not inside the image of 20 x 10"),
        ((0, 1, 5, 5), "is not inside the image"),
        ((7, 3, 6, 9), "is not inside the image"),
        (("one", 1, 5, 5), "annotation is damaged"),
        (("nan", 1, 5, 5), "is not inside the image"),
    ],
)
def test_check_target_refuses_bad_boxes(tmp_path: Path, box: tuple[object, ...], fault: str) -> None:
    with pytest.raises(CorruptTargetError, match=fault):
        check_target("boxes", voc(tmp_path, box), 20, 10, CLASSES)


def test_check_target_accepts_boxes_or_none(tmp_path: Path) -> None:
    assert check_target("boxes", voc(tmp_path, (1, 1, 20, 10), (5.5, 2, 9, 9)), 20, 10, CLASSES)
    assert check_target("boxes", voc(tmp_path), 20, 10, CLASSES)
    assert check_target("boxes", voc(tmp_path, (0, 0, 99, 99), name="unicorn"), 20, 10, CLASSES)


@pytest.mark.parametrize(
    ("kind", "pixels", "fault"),
    [
        ("masks", np.zeros((9, 20), np.uint8), "mask of 20 x 9 pixels, the image has 20 x 10"),
        ("masks", np.full((10, 20), 21, np.uint8), "value 21; expected 0 to 20"),
        ("masks", np.full((10, 20), 255, np.uint8), "void everywhere"),
        ("masks", np.zeros((10, 20, 3), np.uint8), "mode RGB; expected a palette or gray image"),
        ("depth", np.zeros((10, 20), np.uint16), "no value anywhere"),
        ("depth", np.zeros((10, 20), np.uint8), "mode L; expected 16 bit"),
        ("depth", np.full((10, 20), np.nan, np.float32), "NaN"),
        ("depth", np.full((10, 20), -1, np.float32), "negative"),
        ("depth", np.ones((20, 10), np.float32), "depth map of 10 x 20 pixels"),
    ],
)
def test_check_target_refuses_bad_maps(tmp_path: Path, kind, pixels: np.ndarray, fault: str) -> None:
    path = tmp_path / ("a.npy" if pixels.dtype == np.float32 else "a.png")
    if pixels.dtype == np.float32:
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    with pytest.raises(CorruptTargetError, match=fault):
        check_target(kind, path, 20, 10, CLASSES)


def test_check_target_refuses_bad_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    (tmp_path / "a.xml").write_text("<annotation><object>")
    for kind, name, fault in (
        ("masks", "a.png", "mask is damaged"),
        ("depth", "a.png", "depth map is damaged"),
        ("boxes", "a.xml", "annotation is damaged"),
        ("boxes", "b.xml", "b.xml is missing"),
    ):
        with pytest.raises(CorruptTargetError, match=fault):
            check_target(kind, tmp_path / name, 20, 10, CLASSES)  # type: ignore[arg-type]


def test_index_skips_images_with_bad_targets(tmp_path: Path) -> None:
    before = indexed(tmp_path, "masks")
    (before.root / before.targets.paths[0]).unlink()  # type: ignore[union-attr]
    after = indexed(tmp_path, "masks")
    assert after.paths == before.paths[1:]
    assert after.skipped == {before.paths[0]: f"{Path(before.paths[0]).stem}.png is missing"}
    with pytest.raises(ArtifactError, match=r"was readable when the index was made .* restore it"):
        read_target(before, 0)


class WithMask(Transform):
    padding = {"mask": VOID}

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        mask = torch.from_numpy(np.array(read_target(index, sample)))
        return {"image": image, "mask": mask, "place": torch.tensor([rng.random()])}


@pytest.mark.parametrize("workers", [0, 2])
def test_batch_pads_images_of_different_sizes(tmp_path: Path, workers: int) -> None:
    index = indexed(tmp_path, "masks", n=8)
    assert len({tuple(size) for size in index.sizes.tolist()}) > 1
    (batch,) = load_batches(index, WithMask(), sequential_keys(range(8), 8), seed=3, workers=workers)
    width, height = index.sizes.max(0)
    assert batch.images.shape == (8, 3, height, width) and batch.targets["mask"].shape == (8, height, width)
    assert batch.sizes.tolist() == index.sizes[:, ::-1].tolist()
    (alone,) = load_batches(index, WithMask(), sequential_keys([5], 1), seed=3)
    h, w = batch.sizes[5]
    assert torch.equal(batch.images[5, :, :h, :w], alone.images[0])
    assert torch.equal(batch.targets["mask"][5, :h, :w], alone.targets["mask"][0])
    assert torch.equal(batch.targets["place"][5], alone.targets["place"][0])
    assert (batch.targets["mask"][5, h:] == VOID).all() and (batch.images[5, :, :, w:] == 0).all()
    parts = batch.split(3)
    assert [len(part) for part in parts] == [3, 3, 2]
    assert torch.equal(torch.cat([part.targets["mask"] for part in parts]), batch.targets["mask"])
