from pathlib import Path

import pytest
import torch

from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.metrics import read_metrics
from ssltransfer.config.backbones import ResNet18
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.protocols import FasterRcnn as Options
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import load_batches, training_keys
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.protocols.faster_rcnn import FasterRcnn
from ssltransfer.stages.evaluate import run
from tests.helpers.protocol_inputs import make_model

BACKBONE = ResNet18(width_mult=0.125, img_size=32)


def small(steps: int = 4, **changes: object) -> Options:
    given = {
        "min_size": (64, 80),
        "max_size": 200,
        "test_min_size": 64,
        "anchor_scales": (1, 2, 4),
        "rpn_batch_size_per_image": 64,
        "roi_batch_size_per_image": 32,
        "rpn_post_nms_top_n": (100, 50),
        "schedule": Schedule(steps=steps, batch_size=2, lr=0.01, bias_lr_mult=2.0),
    }
    return Options(**{**given, **changes})


def detector(options: Options) -> FasterRcnn:
    return FasterRcnn(
        PretrainedModel(build_backbone(BACKBONE, include_top=True).eval(), "imagenet", "", "it"), options, 20, 0
    )


def test_options_match_published_constants() -> None:
    options = Options()
    schedule = options.schedule
    assert (schedule.steps, schedule.batch_size, schedule.milestones, schedule.gamma) == (70_000, 1, (50_000,), 0.1)
    assert (
        options.rpn_batch_size_per_image,
        options.roi_batch_size_per_image,
        options.rpn_post_nms_top_n,
        options.rpn_nms_thresh,
        options.nms_thresh,
    ) == (*(256, 128, (2000, 300), 0.7, 0.3),)
    assert (options.min_size, options.max_size) == ((480, 576, 688, 864), 1400)


def test_anchors_match_published_sizes() -> None:
    """Areas 128, 256 and 512 squared, aspects 1:2, 1:1 and 2:1, around every 16th pixel."""
    task = detector(Options())
    x = torch.zeros(1, 3, 608, 800)
    maps = torch.zeros(1, 32, 38, 50)
    from torchvision.models.detection.image_list import ImageList

    (anchors,) = task.rpn.anchor_generator(ImageList(x, [(600, 800)]), [maps])
    assert anchors.shape == (38 * 50 * 9, 4)
    sides = anchors[:9, 2:] - anchors[:9, :2]
    assert sorted(round(float(area) ** 0.5 / 128, 1) for area in sides.prod(1)) == [1.0] * 3 + [2.0] * 3 + [4.0] * 3
    assert sorted({round(float(h / w), 1) for w, h in sides}) == [0.5, 1.0, 2.0]
    centers = (anchors[::9, :2] + anchors[::9, 2:]) / 2
    assert centers[1].tolist() == [16, 0] and centers[-1].tolist() == [49 * 16, 37 * 16]


def test_task_trains_all_but_norms(boxes: tuple[Path, Path]) -> None:
    task = detector(small()).train()
    index = read_index(boxes[0])
    (batch,) = load_batches(index, task.transform, training_keys(len(index), 2, 0, 1, 0), seed=0)
    torch.manual_seed(0)
    found = task(batch, batch.rng(0))
    found["loss"].backward()
    assert torch.isfinite(found["loss"])
    parts = ("loss_class", "loss_box", "rpn_loss_objectness", "rpn_loss_rpn_box_reg")
    assert float(found["loss"].detach()) == pytest.approx(sum(float(found[part].detach()) for part in parts))
    still = {name for name, p in task.named_parameters() if p.grad is None}
    assert still and all(".bn" in name or "downsample.1" in name for name in still)


def test_task_rejects_other_backbones(chain) -> None:
    from ssltransfer.models.weights import read_model

    with pytest.raises(LayerError, match="use fast-rcnn for networks with fully-connected layers"):
        FasterRcnn(read_model(chain.model), small(), 20, 0)


def test_evaluate_is_reproducible(boxes: tuple[Path, Path], tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", BACKBONE)
    spec = EvaluationSpec(protocol=small(score_thresh=0.0), train="a", test="b")
    for name in ("one", "two"):
        output = tmp_path / name / "voc" / "m.json"
        run(spec, model=model, train=boxes[0], test=boxes[1], output=output, threads=1)
    assert output.read_bytes() == (tmp_path / "one" / "voc" / "m.json").read_bytes()
    found = read_metrics(output)
    assert set(found.values) == {"map", "map_area", "map75"} and found.chance == 0
    assert found.details["detections"] > 0 and found.details["drawn"]
