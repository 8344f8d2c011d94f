import math

import numpy as np
import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, box_iou

from ssltransfer.config.protocols import FastRcnn
from ssltransfer.protocols.detection.boxes import RoiSampler, decode, detections, encode, roi_loss
from tests.helpers.pretended_cuda import CUDA, PretendCuda


def boxes(n: int, seed: int, size: float = 200.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(n, 2, generator=generator) * size
    return torch.cat([corners, corners + 5 + torch.rand(n, 2, generator=generator) * size], dim=1)


def test_encode_equals_torchvision_and_decode_inverts() -> None:
    rois, wanted = boxes(50, 0), boxes(50, 1)
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    targets = encode(wanted, rois)
    torch.testing.assert_close(targets, coder.encode_single(wanted, rois), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decode(targets, rois), wanted, rtol=1e-4, atol=1e-3)
    deltas = torch.randn(50, 7, 4, generator=torch.Generator().manual_seed(2)) * 20
    reference = coder.decode_single(deltas.flatten(1), rois).reshape(50, 7, 4)
    torch.testing.assert_close(decode(deltas, rois[:, None]), reference, rtol=1e-4, atol=1e-2)


def test_encode_worked_example() -> None:
    # A region of 10 x 20 around (5, 10); the obj is 20 x 20 around (6, 10).
    target = encode(torch.tensor([[-4.0, 0.0, 16.0, 20.0]]), torch.tensor([[0.0, 0.0, 10.0, 20.0]]))
    assert target[0].tolist() == pytest.approx([0.1 / 0.1, 0.0, math.log(2) / 0.2, 0.0])


@pytest.mark.parametrize(("low", "share"), [(0.1, 0.25), (0.0, 0.5)])
def test_sampling_respects_fractions_and_iou(low: float, share: float) -> None:
    objects, classes = boxes(3, 3), torch.tensor([4, 0, 9])
    shaken = objects.repeat(60, 1) + torch.randn(180, 4, generator=torch.Generator().manual_seed(4)) * 20
    proposals = torch.cat([shaken[(shaken[:, 2:] > shaken[:, :2]).all(1)], boxes(300, 5)])
    sampling = RoiSampler(64, share, (low, 0.5))
    rois, labels, matched = sampling(proposals, objects, classes, torch.Generator().manual_seed(0))
    overlap, nearest = box_iou(objects, rois).max(0)
    foreground = labels > 0
    assert len(rois) == 64 and int(foreground.sum()) == round(64 * share)
    assert (overlap[foreground] >= 0.5).all()
    assert ((overlap[~foreground] >= low) & (overlap[~foreground] < 0.5)).all()
    assert torch.equal(labels[foreground], classes[nearest[foreground]] + 1)
    assert torch.equal(matched, objects[nearest])
    assert len(torch.unique(rois, dim=0)) == 64, "without replacement"
    again = sampling(proposals, objects, classes, torch.Generator().manual_seed(0))[0]
    other = sampling(proposals, objects, classes, torch.Generator().manual_seed(1))[0]
    assert torch.equal(rois, again) and not torch.equal(rois, other)


def test_sampling_of_few_proposals() -> None:
    obj = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    proposals = torch.tensor([[5.0, 0.0, 15.0, 10.0], [50.0, 50.0, 60.0, 60.0]])  # overlaps 1/3 and 0
    rois, labels, _ = RoiSampler(64, 0.25, (0.1, 0.5))(proposals, obj, torch.tensor([2]))
    assert labels.tolist() == [3, 0]
    assert rois.tolist() == [obj[0].tolist(), proposals[0].tolist()]
    rois, labels, _ = RoiSampler(64, 0.25, (0.1, 0.5))(proposals[:0], obj, torch.tensor([2]))
    assert labels.tolist() == [3]


def test_roi_loss_equals_plain_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    rois, matched = boxes(6, 6), boxes(6, 7)
    logits, deltas = torch.randn(6, 4, generator=generator), torch.randn(6, 3, 4, generator=generator)
    labels = torch.tensor([0, 2, 0, 3, 1, 0])
    named, placed = roi_loss(logits, deltas, rois, labels, matched)
    targets, total, nats = encode(matched, rois), 0.0, 0.0
    for row, label in enumerate(labels.tolist()):
        nats -= math.log(math.exp(float(logits[row, label])) / float(logits[row].exp().sum()))
        if label:
            for error in (deltas[row, label - 1] - targets[row]).abs().tolist():
                total += error**2 / 2 if error < 1 else error - 0.5
    assert float(named) == pytest.approx(nats / 6, rel=1e-5)
    assert float(placed) == pytest.approx(total / 6, rel=1e-5)


def test_roi_loss_without_objects_has_gradient() -> None:
    deltas = torch.zeros(2, 3, 4, requires_grad=True)
    _, placed = roi_loss(torch.zeros(2, 4), deltas, boxes(2, 0), torch.zeros(2).long(), boxes(2, 1))
    placed.backward()
    assert placed.item() == 0 and deltas.grad is not None and not deltas.grad.any()


def kept(scores: torch.Tensor, where: torch.Tensor, **changes: float) -> tuple[list[float], list[int]]:
    found = detections(scores, where, (200, 300), FastRcnn(**changes))
    return [round(score, 3) for score in found.scores.tolist()], found.classes.tolist()


def test_detections_suppress_overlapping_boxes() -> None:
    where = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [50.0, 0.0, 60.0, 10.0]])
    where = where[:, None].expand(3, 2, 4)
    scores = torch.tensor([[0.1, 0.6, 0.2], [0.0, 0.7, 0.01], [0.2, 0.3, 0.5]])
    assert kept(scores, where) == ([0.7, 0.5, 0.3, 0.2], [0, 1, 0, 1])
    assert kept(scores, where, detections_per_img=2) == ([0.7, 0.5], [0, 1])
    assert kept(scores, where, nms_thresh=0.95) == ([0.7, 0.6, 0.5, 0.3, 0.2], [0, 0, 1, 0, 1])
    assert kept(scores, where, score_thresh=0.55) == ([0.7], [0])
    assert kept(scores[:0], where[:0]) == ([], [])


def test_detections_clip_boxes_and_drop_empty_ones() -> None:
    where = torch.tensor([[[-5.0, 10.0, 20.0, 500.0]], [[400.0, 0.0, 500.0, 10.0]]])
    found = detections(torch.tensor([[0.1, 0.9], [0.1, 0.9]]), where, (200, 300), FastRcnn())
    assert found.boxes.tolist() == [[0.0, 10.0, 20.0, 200.0]]


def test_detections_equal_torchvision_nms() -> None:
    generator = torch.Generator().manual_seed(3)
    where = boxes(200, 8)[:, None].expand(200, 5, 4) + torch.rand(200, 5, 4, generator=generator)
    scores = torch.rand(200, 6, generator=generator)
    options = FastRcnn(nms_thresh=0.3, score_thresh=0.4, detections_per_img=10_000)
    found = detections(scores, where, (10_000, 10_000), options)
    flat, score = where.reshape(-1, 4), scores[:, 1:].reshape(-1)
    likely = (score >= 0.4).nonzero()[:, 0]
    places = likely[batched_nms(flat[likely], score[likely], likely % 5, 0.3)]
    np.testing.assert_allclose(found.scores, score[places].numpy())
    assert found.classes.tolist() == (places % 5).tolist()


def test_detections_wait_for_a_gpu_twice() -> None:
    """Not for each class."""
    where, scores = boxes(50, 3)[:, None].expand(50, 20, 4).clone(), torch.rand(50, 21)
    expected = detections(scores, where, (200, 300), FastRcnn())
    with PretendCuda() as cuda:
        found = detections(scores.to(CUDA), where.to(CUDA), (200, 300), FastRcnn())
        cuda.reset()
        detections(scores.to(CUDA), where.to(CUDA), (200, 300), FastRcnn())
    assert not cuda.faults and sum(cuda.waits.values()) <= 4, "two copies there, two back"
    np.testing.assert_array_equal(found.boxes, expected.boxes)
