import math
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from torch import nn

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.metrics import read_metrics
from ssltransfer.config.backbones import AlexNetBN, ResNet18, Vgg16
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.formats import Table
from ssltransfer.config.protocols import VocClassification
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.fuse_bn import fuse_conv_bn
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.protocols.voc_classification import MultiLabelFinetuneTask, ScaledCrop
from ssltransfer.stages.evaluate import run
from ssltransfer.stages.index import run as make_index
from tests.helpers.protocol_inputs import make_model

PRESENCE = np.array([[1, -1, 0], [-1, 1, -1], [0, 0, 1], [-1, -1, -1]], np.int8)


def tuned(model: Path, train: str, seed: int = 0) -> MultiLabelFinetuneTask:
    options = VocClassification(trainable=train)
    return MultiLabelFinetuneTask(read_model(model), "it", options, PRESENCE, seed)


def test_options_match_published_constants() -> None:
    schedule = VocClassification().schedule
    assert (schedule.steps, schedule.batch_size, schedule.momentum, schedule.weight_decay) == (80_000, 16, 0.9, 1e-6)
    assert schedule.clip_grad_norm == 10
    assert [schedule.lr_at(step, 5011) for step in (0, 9_999, 10_000, 79_999)] == [0.001, 0.001, 0.0005, 0.001 / 2**7]


def test_scaled_crop_fits_and_has_scale() -> None:
    image = torch.zeros(3, 120, 150, dtype=torch.uint8)
    image[0] = torch.arange(150)
    spans, crop = [], ScaledCrop(50, (0.5, 2.0))
    for number in range(200):
        found = crop.apply(image, Random(number))
        assert found.shape == (3, 50, 50)
        spans.append(float(found[0, 25].float().max() - found[0, 25].float().min()))
    assert 20 <= min(spans) < 30 and 92 < max(spans) <= 100
    small = crop.apply(torch.full((3, 30, 20), 7, dtype=torch.uint8), Random(0))
    assert small.shape == (3, 50, 50) and (small == 7).all(), "nothing is padded"


@pytest.mark.parametrize(
    ("train", "learning"),
    [("all", {"conv1", "conv5", "fc6", "fc7"}), ("fc6-8", {"fc6", "fc7"}), ("fc8", set())],
)
def test_task_trains_chosen_layers(chain, train: str, learning: set[str]) -> None:
    task = tuned(chain.full_model, train)
    given = read_model(chain.full_model).backbone.state_dict()
    found = {name.split(".")[0] for name, p in task.backbone.named_parameters() if p.requires_grad}
    assert {name for name in ("conv1", "conv5", "fc6", "fc7") if name in found} == learning
    for name, value in task.backbone.state_dict().items():
        kept = name.startswith("conv") or train == "fc8"
        assert torch.equal(value, given[name]) == kept, name
    names = ["head.1"] if train == "fc8" else ["head.1", "backbone.fc6", "backbone.fc7"]
    for layer in map(task.get_submodule, names):
        assert (layer.get_parameter("bias") == 0.1).all()
        assert float(layer.get_parameter("weight").detach().std()) == pytest.approx(0.01, rel=0.15)
    again = tuned(chain.full_model, train, seed=1)
    assert not torch.equal(task.get_parameter("head.1.weight"), again.get_parameter("head.1.weight"))


def test_task_of_model_without_fc(chain, tmp_path: Path) -> None:
    assert tuned(chain.model, "all").backbone.layers[-1] == "fc7"
    with pytest.raises(LayerError, match="no layer 'fc7'"):
        tuned(chain.model, "fc8")
    residual = make_model(tmp_path / "r", ResNet18(width_mult=0.125, img_size=32))
    task = tuned(residual, "fc8")
    assert {name for name, p in task.named_parameters() if p.requires_grad} == {"head.1.weight", "head.1.bias"}
    assert task.head[1].in_features == 64
    task.train()
    assert not any(module.training for module in task.backbone.modules() if isinstance(module, nn.BatchNorm2d))
    assert all(m.training for m in tuned(residual, "all").train().modules() if isinstance(m, nn.BatchNorm2d))


def test_task_freezes_batch_norms(tmp_path: Path) -> None:
    model = make_model(tmp_path / "v", Vgg16(width_mult=0.03, img_size=32), include_top=False)
    task = tuned(model, "fc6-8").train()
    norms = [module for module in task.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    dropouts = [module for module in task.modules() if isinstance(module, nn.Dropout)]
    assert len(norms) == 13 and not any(module.training for module in norms)
    assert len(dropouts) == 2 and all(module.training for module in dropouts)


def test_loss_equals_released_code(chain, rng: np.random.Generator) -> None:
    task = tuned(chain.full_model, "fc8").eval()
    batch = Batch(
        torch.from_numpy(rng.integers(0, 256, (3, 3, 64, 64), np.uint8)),
        torch.tensor([2, 0, 1]),
        torch.zeros(3).long(),
        {"multi_label": torch.from_numpy(PRESENCE[[2, 0, 1]])},
    )
    sample_rng = batch.rng(0)
    with torch.no_grad():
        loss = float(task(batch, sample_rng)["loss"])
        logits = task.logits(batch.images, sample_rng)
    total = 0.0
    for row, sample in enumerate([2, 0, 1]):
        for c in range(3):
            if PRESENCE[sample, c] != 0:
                p = 1 / (1 + math.exp(-float(logits[row, c])))
                total -= math.log(p if PRESENCE[sample, c] > 0 else 1 - p)
    # Sum over classes, mean over images, at 20 classes; here there are 3.
    assert loss == pytest.approx(total / 3 * 20 / 3, rel=1e-5)


def test_chance_loss_is_entropy_of_class_frequencies(chain, rng: np.random.Generator) -> None:
    presence = rng.choice([-1, 0, 1], (40, 5), p=[0.6, 0.1, 0.3]).astype(np.int8)
    task = MultiLabelFinetuneTask(
        read_model(chain.full_model), "it", VocClassification(trainable="fc8"), presence, 0
    ).eval()
    share = torch.from_numpy((presence > 0).sum(0) / (presence != 0).sum(0))
    with torch.no_grad():
        task.head.get_parameter("1.weight").zero_()
        task.head.get_parameter("1.bias").copy_(share.logit())
        targets = {"multi_label": torch.from_numpy(presence)}
        batch = Batch(torch.zeros(40, 3, 64, 64, dtype=torch.uint8), torch.arange(40), torch.zeros(40).long(), targets)
        assert float(task(batch, batch.rng(0))["loss"]) == pytest.approx(task.chance_loss, rel=1e-5)


@pytest.mark.parametrize("absorb", [False, True])
def test_task_fuses_norms_of_fc(absorb: bool) -> None:
    backbone = build_backbone(AlexNetBN(width_mult=0.06, img_size=64), include_top=True)
    model = PretrainedModel(backbone.eval(), "imagenet", "", "it")
    task = MultiLabelFinetuneTask(model, "it", VocClassification(trainable="fc6-8"), PRESENCE, 0)
    assert not any(isinstance(part, nn.BatchNorm1d) for part in task.modules())
    learning = [p for p in task.backbone.parameters() if p.requires_grad]
    assert [p.ndim for p in learning] == [2, 1, 2, 1] and all((p == 0.1).all() for p in learning if p.ndim == 1)
    if absorb:
        assert fuse_conv_bn(task.backbone) == 5
    targets = {"multi_label": torch.from_numpy(PRESENCE)}
    batch = Batch(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), torch.arange(4), torch.zeros(4).long(), targets)
    task.train()(batch, batch.rng(0))["loss"].backward()
    assert all((p.grad is not None) == p.requires_grad for p in task.parameters())
    frozen = MultiLabelFinetuneTask(model, "it", VocClassification(trainable="fc8"), PRESENCE, 0).train()
    norms = [part for part in frozen.backbone.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) == 7 and not any(norm.training for norm in norms)


def test_evaluate_is_reproducible(chain, voc: tuple[Path, Path], tmp_path: Path) -> None:
    protocol = VocClassification(schedule=Schedule(steps=12, batch_size=8, lr=0.001, clip_grad_norm=10.0), crops=3)
    spec = EvaluationSpec(protocol=protocol, train="a", test="b", seeds=(0, 1))
    for name in ("one", "two"):
        given = {"model": chain.model, "train": voc[0], "test": voc[1], "threads": 1}
        run(spec, output=tmp_path / name / "voc" / "m.json", **given)
    output = tmp_path / "one" / "voc" / "m.json"
    assert output.read_bytes() == (tmp_path / "two" / "voc" / "m.json").read_bytes()
    found = read_metrics(output)
    presence = read_index(voc[1]).multi_label
    assert presence is not None
    there = (presence > 0).any(0)
    aps = [ap for ap in found.details["per_class"].values() if ap is not None]
    assert len(aps) == there.sum() < 20 and len(found.details["classes_without_positives"]) == 20 - there.sum()
    assert found.values["map"][0] == pytest.approx(np.mean(aps), abs=1e-4)
    share = (presence > 0).sum(0) / (presence != 0).sum(0)
    assert found.chance == pytest.approx(100 * share[there].mean(), abs=1e-4)
    assert len(found.values["map"]) == len(found.values["map11"]) == 2
    assert found.primary_metric == "map"


def test_evaluate_table_with_columns_equals_voc(chain, voc: tuple[Path, Path], tmp_path: Path) -> None:
    protocol = VocClassification(schedule=Schedule(steps=2, batch_size=8, lr=0.001), crops=1)
    tables = []
    for name, path in zip("ab", voc, strict=True):
        index = read_index(path)
        assert index.multi_label is not None
        cells = [[("0", "", "1")[value + 1] for value in row] for row in index.multi_label.tolist()]
        lines = [["path", *index.classes], *([path, *row] for path, row in zip(index.paths, cells, strict=True))]
        (tmp_path / f"{name}.csv").write_text("".join(",".join(line) + "\n" for line in lines))
        options = {"table": str(tmp_path / f"{name}.csv"), "root": str(index.root), "labels": index.classes}
        make_index(Table.model_validate(options), output=tmp_path / f"{name}.parquet", threads=1)
        tables.append(tmp_path / f"{name}.parquet")
        assert read_index(tables[-1]).fingerprint == index.fingerprint
    spec = EvaluationSpec(protocol=protocol, train="a", test="b")
    found = []
    for name, (train, test) in {"voc": voc, "table": tables}.items():
        output = tmp_path / name / "m.json"
        run(spec, model=chain.model, train=train, test=test, output=output, threads=1)
        found.append(read_metrics(output))
    assert found[0].values == found[1].values and found[0].details == found[1].details


def test_evaluate_rejects_single_label_sets(chain, tmp_path: Path) -> None:
    spec = EvaluationSpec(protocol=VocClassification(), train="a", test="b")
    with pytest.raises(ArtifactError, match="a: does not have several labels"):
        run(spec, model=chain.model, train=chain.train, test=chain.test, output=tmp_path / "m.json", threads=1)
