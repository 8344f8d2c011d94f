import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.metrics import read_metrics
from ssltransfer.config.backbones import BackboneOptions, CaffeNet, ResNet18
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.formats import Voc
from ssltransfer.config.protocols import FastRcnn as Options
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import load_batches, training_keys
from ssltransfer.data.targets import Boxes
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.protocols.detection.backbones import calibrate_bn
from ssltransfer.protocols.detection.proposals import grid
from ssltransfer.protocols.fast_rcnn import FastRcnn, covered
from ssltransfer.stages.evaluate import run
from ssltransfer.stages.index import run as make_index
from ssltransfer.training.devices import Devices
from ssltransfer.training.fit import fit
from tests.helpers.protocol_inputs import make_model, make_sets

BACKBONE = CaffeNet(width_mult=0.125, img_size=64, stem_stride=2, bn=True)
CPU = Devices(torch.device("cpu"), 0)


def small(steps: int = 4, **changes: object) -> Options:
    schedule = Schedule(steps=steps, batch_size=2, lr=0.01, bias_lr_mult=2.0)
    given = {
        "proposals": "grid",
        "min_size": (64, 80),
        "max_size": 200,
        "test_min_size": 64,
        "multiscale_min_size": (64, 96),
        "schedule": schedule,
    }
    return Options(**{**given, **changes})


def detector(boxes: tuple[Path, Path], options: Options, backbone: BackboneOptions = BACKBONE) -> FastRcnn:
    model = PretrainedModel(build_backbone(backbone, include_top=True).eval(), "imagenet", "", "it")
    proposals = [[grid(*size) for size in read_index(path).sizes.tolist()] for path in boxes]
    return FastRcnn(model, "it", options, 20, 0, proposals)


def test_options_match_published_constants() -> None:
    options = Options()
    schedule = options.schedule
    assert (schedule.steps, schedule.batch_size, schedule.momentum, schedule.weight_decay) == (150_000, 2, 0.9, 5e-4)
    assert [schedule.lr_at(step, 5011) for step in (0, 49_999, 50_000, 149_999)] == pytest.approx(
        [1e-3, 1e-3, 1e-4, 1e-5]
    )
    assert schedule.bias_lr_mult == 2
    assert (options.roi_batch_size_per_image, options.fg_fraction, options.bg_iou_range) == (64, 0.25, (0.1, 0.5))
    assert options.min_size == (480, 576, 688, 864, 1200) and options.max_size == 2000 and options.test_min_size == 600
    assert options.nms_thresh == 0.3


def test_task_initializes_new_layers_as_released(boxes: tuple[Path, Path]) -> None:
    task = detector(boxes, small(), CaffeNet(width_mult=0.25, img_size=64, stem_stride=2))
    assert float(task.scores.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    assert float(task.boxes.weight.detach().std()) == pytest.approx(0.001, rel=0.1)
    assert not task.scores.bias.any() and not task.boxes.bias.any()
    assert task.scores.out_features == 21 and task.boxes.out_features == 80


def test_task_starts_at_chance_loss(boxes: tuple[Path, Path]) -> None:
    task, index = detector(boxes, small()), read_index(boxes[0])
    calibrate_bn(task.body, task.examples(index, CPU))
    task.train()
    (batch,) = load_batches(index, task.transform, training_keys(len(index), 2, 0, 1, 0), seed=0)
    found = task(batch, batch.rng(0))
    assert float(found["loss_class"].detach()) == pytest.approx(task.chance_loss, rel=0.2)
    assert float(found["loss"].detach()) == pytest.approx(float((found["loss_class"] + found["loss_box"]).detach()))


def test_task_freezes_conv1(boxes: tuple[Path, Path], tmp_path: Path) -> None:
    task = detector(boxes, small())
    before = {name: value.clone() for name, value in task.state_dict().items()}
    fit(task, read_index(boxes[0]), small().schedule, seed=0, folder=tmp_path, devices=CPU)
    same = {name for name, value in task.state_dict().items() if torch.equal(value, before[name])}
    norms = {name for name in before if ".bn" in name}
    assert same == {"body.backbone.conv1.weight", "body.backbone.conv1.bias"} | norms


def test_predict_uses_scale_nearest_to_224(boxes: tuple[Path, Path]) -> None:
    task = detector(boxes, small()).eval()
    asked: list[tuple[int, list[list[float]]]] = []
    predict_boxes = task.predict_boxes

    def noted(maps: torch.Tensor, rois: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append((maps.shape[-1], rois.tolist()))
        return predict_boxes(maps, rois)

    task.predict_boxes = noted  # type: ignore[method-assign]
    # Sides 100, 200 and 400 in views of 1 and 2 times the image: 200, 200 and 400.
    sides = np.array([[0, 0, s, s] for s in (100, 200, 400)], np.float32)
    task.test_proposals = [sides]
    views = [torch.zeros(1, 3, 400, 400, dtype=torch.uint8), torch.zeros(1, 3, 800, 800, dtype=torch.uint8)]
    _, found = task.predict(0, views, 400, 400)
    (small_map, at_one), (large_map, at_two) = asked
    assert large_map == 2 * small_map - 1 or large_map == 2 * small_map
    assert at_one == [[0, 0, 200, 200], [0, 0, 400, 400]] and at_two == [[0, 0, 200, 200]]
    sizes = (found[..., 2:] - found[..., :2]).mean((1, 2)).tolist()
    assert sorted(sizes) == pytest.approx([100, 200, 400], rel=0.05), "in pixels of the image again"
    task.test_proposals = [sides[:0]]
    assert task.predict(0, views, 400, 400)[0].shape == (0, 21)


def test_task_accepts_residual_network_and_recall_of_proposals(boxes: tuple[Path, Path]) -> None:
    task = detector(boxes, small(), ResNet18(width_mult=0.125, img_size=32)).train()
    index = read_index(boxes[0])
    (batch,) = load_batches(index, task.transform, training_keys(len(index), 2, 0, 1, 0), seed=0)
    task(batch, batch.rng(0))["loss"].backward()
    assert all(p.grad is not None for p in task.parameters() if p.requires_grad)
    truth = [Boxes(np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32), np.zeros(2, int), np.array([False] * 2))]
    assert covered([np.array([[0, 0, 10, 15]], np.float32)], truth) == 50
    truth = [replace(truth[0], difficult=np.array([False, True]))]
    assert covered([np.array([[0, 0, 10, 15]], np.float32)], truth) == 100


def test_evaluate_is_reproducible_and_resumes(
    boxes: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path / "m", BACKBONE)
    spec = EvaluationSpec(protocol=small(score_thresh=0.0), train="a", test="b", seeds=(0, 1))
    given = {"model": model, "train": boxes[0], "test": boxes[1], "threads": 1}
    run(spec, output=tmp_path / "one" / "voc" / "m.json", **given)  # type: ignore[arg-type]
    monkeypatch.setenv("SSLTRANSFER_CHECKPOINT_STEPS", "1")
    original = FastRcnn.after_step

    def killed(self: FastRcnn, step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt
        original(self, step)

    with monkeypatch.context() as patched:
        patched.setattr(FastRcnn, "after_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(spec, output=tmp_path / "two" / "voc" / "m.json", **given)  # type: ignore[arg-type]
    run(spec, output=tmp_path / "two" / "voc" / "m.json", **given)  # type: ignore[arg-type]
    one, two = (tmp_path / name / "voc" / "m.json" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    found = read_metrics(one)
    assert set(found.values) == {
        f"{name}{ending}" for name in ("map", "map_area", "map75") for ending in ("", "_multi")
    }
    assert found.primary_metric == "map" and found.chance == 0 and all(len(v) == 2 for v in found.values.values())
    there = [ap for ap in found.details["per_class"].values() if ap is not None]
    assert found.values["map"][0] == pytest.approx(np.mean(there), abs=1e-4)
    assert len(found.details["classes_without_objects"]) == 20 - len(there)
    assert found.details["proposals"] == "grid" and 50 < found.details["proposal_recall"] <= 100
    assert 1 <= len(found.details["drawn"]) <= 6
    assert all(one["uri"].startswith("data:image/jpeg") and len(one["uri"]) < 40_000 for one in found.details["drawn"])
    assert found.details["lines"][0]["title"] == "precision over recall"


def test_evaluate_rejects_sets_without_boxes(boxes: tuple[Path, Path], chain, tmp_path: Path) -> None:
    spec = EvaluationSpec(protocol=small(), train="a", test="b")
    with pytest.raises(ArtifactError, match=r"a: was indexed without boxes; set `targets: boxes`"):
        run(spec, model=chain.model, train=chain.train, test=chain.test, output=tmp_path / "m.json", threads=1)
    with pytest.raises(ArtifactError, match="b: its classes are not those of a"):
        run(spec, model=chain.model, train=boxes[0], test=chain.test, output=tmp_path / "m.json", threads=1)


@pytest.mark.real
def test_evaluate_on_real_images(real_data: Path, tmp_path: Path) -> None:
    """Images of COCO in VOC's layout, half to learn from and half to test, with proposals of a file."""
    proposals = {}
    for split in ("train", "val"):
        dataset = Voc(root=str(real_data / "voc_coco"), split=split, targets="boxes")
        make_index(dataset, output=tmp_path / f"{split}.parquet", threads=1)
        index = read_index(tmp_path / f"{split}.parquet")
        assert len(index) == 29
        for path, (width, height) in zip(index.paths, index.sizes.tolist(), strict=True):
            proposals[Path(path).stem] = grid(width, height) - (0, 0, 1, 1)
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(proposals))
    options = small(
        8, proposals=(str(tmp_path / "p.pkl"),), min_size=(128,), test_min_size=128, multiscale_min_size=None
    )
    spec = EvaluationSpec(protocol=options.model_copy(update={"score_thresh": 0.0}), train="a", test="b")
    output = tmp_path / "voc" / "m.json"
    given = {
        "model": make_model(tmp_path / "m", BACKBONE),
        "train": tmp_path / "train.parquet",
        "test": tmp_path / "val.parquet",
    }
    run(spec, output=output, threads=1, **given)
    found = read_metrics(output)
    assert 0 <= found.values["map"][0] < 100 and found.details["detections"] > 0
    assert 40 < found.details["proposal_recall"] < 100
    assert len(found.details["drawn"]) == 6


@pytest.mark.slow
def test_evaluate_learns_to_detect(tmp_path: Path) -> None:
    """A small network from scratch ends far above its score after one step (a minute or two on one core)."""
    train, test = make_sets(tmp_path, "voc", {"trainval": 300, "test": 80}, 96, targets="boxes")
    model = make_model(tmp_path / "m", CaffeNet(width_mult=0.25, img_size=64, stem_stride=2, bn=True))
    found = {}
    for steps in (1, 400):
        schedule = Schedule(steps=steps, batch_size=4, optimizer="adam", lr=0.001, lr_schedule="cosine")
        options = small(
            min_size=(96,),
            test_min_size=96,
            multiscale_min_size=None,
            freeze_at=0,
            dropout=0.0,
            score_thresh=0.0,
            schedule=schedule,
        )
        output = tmp_path / str(steps) / "m.json"
        spec = EvaluationSpec(protocol=options, train="a", test="b")
        run(spec, model=model, train=train, test=test, output=output, threads=1)
        found[steps] = read_metrics(output).mean()
    assert found[1] < 2 and found[400] > 7
