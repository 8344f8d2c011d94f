from random import Random

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.config.formats import Synthetic
from ssltransfer.data.image_cache import read_sample
from ssltransfer.data.loader import load_batches
from ssltransfer.data.targets import read_target
from ssltransfer.models.normalize import normalize
from ssltransfer.protocols.detection.boxes import RoiSampler
from ssltransfer.protocols.detection.proposals import grid
from ssltransfer.protocols.detection.transforms import (
    DetectionTransform,
    MultiScaleTransform,
    RoiTransform,
    fitted,
    moved,
    objects_of,
    preprocess_image,
)
from ssltransfer.stages.index import run as make_index


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Index:
    root = tmp_path_factory.mktemp("views")
    spec = Synthetic(subset="voc", split="trainval", num_images=12, size=64, targets="boxes", root=str(root / "world"))
    make_index(spec, output=root / "voc.parquet", threads=1)
    return read_index(root / "voc.parquet")


@pytest.mark.parametrize(
    ("size", "short", "longest", "wanted"),
    [
        ((375, 500), 600, 1000, (600, 800)),
        ((500, 333), 600, 1000, (901, 600)),
        ((200, 500), 600, 1000, (400, 1000)),  # the long side would be 1500
        ((375, 500), 1200, 2000, (1200, 1600)),
    ],
)
def test_fitted_equals_fast_rcnn(size: tuple[int, int], short: int, longest: int, wanted: tuple[int, int]) -> None:
    assert fitted(*size, short, longest) == wanted


def test_moved_boxes_flipped_twice_are_unchanged() -> None:
    boxes = torch.tensor([[0.0, 1, 10, 20], [30, 0, 40, 30]])
    there = moved(boxes, (2.0, 1.5), flip_width=80)
    assert there.tolist() == [[60, 1.5, 80, 30], [0, 0, 20, 45]]
    assert torch.equal(moved(moved(there, (1, 1), flip_width=80), (1, 1), flip_width=80), there)
    assert torch.equal(there, moved(moved(boxes, (2.0, 1.5)), (1, 1), flip_width=80))


def views(voc: Index, view: DetectionTransform, sample: int, n: int = 12) -> list[dict[str, torch.Tensor]]:
    return [view(voc, sample, read_sample(voc, sample), Random(number)) for number in range(n)]


def test_transform_moves_boxes_with_image(voc: Index) -> None:
    """What the boxes hold looks the same, mirrored or not, at every scale."""
    sample = next(sample for sample in range(len(voc)) if len(objects_of(voc, sample).classes))
    found = views(voc, DetectionTransform((64, 96), 400), sample)
    sides = {min(one["image"].shape[-2:]) for one in found}
    assert sides == {64, 96}
    image = read_sample(voc, sample)
    corners = objects_of(voc, sample).corners
    mirrored = 0
    for one in found:
        factor = min(one["image"].shape[-2:]) / min(image.shape[-2:])
        width = one["image"].shape[-1]
        straight = torch.from_numpy(corners) * factor
        flipped = torch.stack([width - straight[:, 2], straight[:, 1], width - straight[:, 0], straight[:, 3]], dim=1)
        is_mirrored = bool((one["image"].flip(-1).float() - _resized(image, one)).abs().max() == 0)
        mirrored += is_mirrored
        torch.testing.assert_close(one["boxes"], flipped if is_mirrored else straight, atol=1.0, rtol=0)
    assert 0 < mirrored < len(found)


def _resized(image: torch.Tensor, view: dict[str, torch.Tensor]) -> torch.Tensor:
    from torchvision.transforms.v2.functional import resize

    return resize(image, list(view["image"].shape[-2:]), antialias=True).float()


def test_transform_drops_difficult_objects(voc: Index) -> None:
    everything = [read_target(voc, sample) for sample in range(len(voc))]
    assert any(boxes.difficult.any() for boxes in everything), "the world has some"  # type: ignore[union-attr]
    for sample, boxes in enumerate(everything):
        assert len(objects_of(voc, sample).classes) == (~boxes.difficult).sum()  # type: ignore[union-attr]


def test_roi_transform_is_reproducible(voc: Index) -> None:
    first, second, *_ = (sample for sample in range(len(voc)) if len(objects_of(voc, sample).classes))
    proposals = [grid(*size) for size in voc.sizes.tolist()]
    view = RoiTransform((64, 96), 400, proposals, RoiSampler(32, 0.25, (0.1, 0.5)))
    plain = DetectionTransform((64, 96), 400)
    for one, other, same in zip(
        views(voc, view, first), views(voc, plain, first), views(voc, view, first), strict=True
    ):
        assert torch.equal(one["image"], other["image"])
        overlap, nearest = box_iou(other["boxes"], one["rois"]).max(0)
        shows = one["labels"] > 0
        assert len(shows) <= 32 and 1 <= int(shows.sum()) <= 8
        assert (overlap[shows] >= 0.5).all() and ((overlap[~shows] >= 0.1) & (overlap[~shows] < 0.5)).all()
        assert torch.equal(one["matched_boxes"], other["boxes"][nearest])
        assert all(torch.equal(one[name], same[name]) for name in one)
    (batch,) = load_batches(voc, view, iter([[(first, 0), (second, 0)]]), seed=3)
    assert batch.targets["rois"].shape[::2] == (2, 4) and batch.sizes.shape == (2, 2)
    assert batch.targets["labels"].dtype == torch.int64


def test_batches_are_padded_with_no_object(voc: Index) -> None:
    counts = [len(objects_of(voc, sample).classes) for sample in range(len(voc))]
    most, least = int(np.argmax(counts)), int(np.argmin(counts))
    (batch,) = load_batches(voc, DetectionTransform((64,), 400), iter([[(least, 0), (most, 0)]]), seed=0)
    assert batch.targets["boxes"].shape == (2, counts[most], 4)
    assert (batch.targets["classes"][0] >= 0).sum() == counts[least]
    assert (batch.targets["classes"][1] >= 0).all()


def test_test_transform_has_several_scales(voc: Index) -> None:
    view = MultiScaleTransform([(64, 100), (96, 400)])(voc, 0, read_sample(voc, 0), Random(0))
    assert min(view["image"].shape[-2:]) <= 64 and min(view["scale-1"].shape[-2:]) == 96


@pytest.mark.parametrize("rule", ["imagenet", "per-image", "caffe"])
def test_preprocess_image_pads_with_zeros(rule: str) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, 3, 33, 30), generator=generator, dtype=torch.uint8)
    found = preprocess_image(image, rule, 32)  # type: ignore[arg-type]
    assert found.shape == (1, 3, 64, 32)
    assert torch.equal(found[:, :, :33, :30], normalize(image, rule))  # type: ignore[arg-type]
    assert not found[:, :, 33:].any() and not found[:, :, :, 30:].any()
    assert preprocess_image(image, rule).shape == (1, 3, 33, 30)  # type: ignore[arg-type]
