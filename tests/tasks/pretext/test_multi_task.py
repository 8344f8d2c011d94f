"""Several tasks on one backbone, as a stage: alone, killed, mixed."""

from __future__ import annotations

import multiprocessing
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ssltransfer.artifacts.files import read_json
from ssltransfer.artifacts.index import Index
from ssltransfer.config.backbones import CaffeNet, ResNet101V2
from ssltransfer.config.base import ConfigError
from ssltransfer.config.entities import Pretext
from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.layer_mix import MixedBackbone
from ssltransfer.stages import pretext
from ssltransfer.tasks.pretext.multi_task import WithL1Penalty, together
from ssltransfer.training.devices import Devices
from ssltransfer.training.multi_task import fit_multi_task
from ssltransfer.training.train_step import Trainer
from tests.helpers import HELPERS
from tests.helpers.small_tasks import train_step

BACKBONE = {"name": "caffenet", "width_mult": 0.125, "img_size": 48, "stem_stride": 2, "bn": True}
DEEP: dict[str, Any] = {"name": "resnet101-v2", "width_mult": 0.125, "img_size": 32, "stem_stride": 1}
ROTATION = {"name": "rotation", "augment": "crop", "hidden_dim": 32}
POSITION = {
    **{"name": "relative-position", "patch": 20, "gap": 8, "jitter": 3, "area_range": [4096, 5184], "crop_size": 60},
    **{"grids_per_image": 1, "pairs_per_image": 4, "hidden_dim": 32},
}
RMSPROP = {
    "steps": 10,
    "batch_size": 8,
    "optimizer": "rmsprop",
    "lr": 0.001,
    "lr_schedule": "cosine",
    "weight_decay": 4e-5,
}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def spec_of(tasks: dict[str, Any], backbone: Any = BACKBONE, schedule: Any = RMSPROP, **options: Any) -> Pretext:
    task = {"name": "multi-task", "tasks": tasks, **options}
    return Pretext.model_validate({"task": task, "backbone": backbone, "data": "d", "val": "h", "schedule": schedule})


TWO = spec_of(
    {
        "turn": {"task": ROTATION, "weight": 1},
        "rp": {
            "task": POSITION,
            "weight": 2,
            "data": "own",
            "schedule": {"batch_size": 4, "lr": 0.002, "micro_batch_size": 2},
        },
    }
)


def test_multi_task_of_one_equals_the_task(tmp_path: Path, objects_path: Path, objects_val_path: Path):
    plain = Pretext.model_validate({**TWO.model_dump(mode="json"), "task": ROTATION, "seed": 3})
    alone = spec_of({"turn": {"task": ROTATION}}).model_copy(update={"seed": 3})
    curves = []
    for name, spec in (("plain", plain), ("alone", alone)):
        output = tmp_path / name / "manifest.json"
        pretext.run(spec, output=output, data=objects_path, val=objects_val_path, threads=1)
        curves.append(read_json(output)["summary"])
    weights = [(tmp_path / name / "backbone.safetensors").read_bytes() for name in ("plain", "alone")]
    assert weights[0] == weights[1]
    for key, value in curves[0].items():
        assert curves[1][key if key in ("step", "chance_loss") else f"turn.{key}"] == value


# As in test_resume.py.
multiprocessing.set_forkserver_preload(["ssltransfer.stages.features", "ssltransfer.stages.pretext"])


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    return multiprocessing.get_context("forkserver")


def test_multi_task_killed_at_any_step_gives_the_same_bytes(
    processes: multiprocessing.context.ForkServerContext, tmp_path: Path, objects_path: Path, objects_val_path: Path
):
    def run(folder: Path, moment: str, count: int) -> int | None:
        folder.mkdir(exist_ok=True)
        given = {"spec": TWO.canonical(), "data": str(objects_path), "val": str(objects_val_path)}
        given |= {"output": str(folder / "manifest.json"), "log": str(folder / "log")}
        more = {"task_data": [str(objects_val_path)], "every": "3", "moment": moment, "count": count}
        script = str(HELPERS / "killed_pretext.py")
        process = processes.Process(target=runpy.run_path, args=(script, {**given, **more}))
        process.start()
        process.join(120)
        return process.exitcode

    assert run(tmp_path / "whole", "", 1) == 0
    for moment, count in (("step", 5), ("half a checkpoint", 1), ("before the manifest", 1)):
        assert run(tmp_path / "cut", moment, count) == -9
    assert run(tmp_path / "cut", "", 1) == 0
    for name in ("manifest.json", "backbone.safetensors", "backbone.json", "curve.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    manifest = read_json(tmp_path / "whole" / "manifest.json")
    assert len(manifest["inputs"]["task_data"]) == 1 and set(manifest["chance_losses"]) == {"rp", "turn"}
    summary = manifest["summary"]
    # 7 of 10 turns of 4 images among 24, 3 of 8 among 48; validation images belong to the pretext's own data.
    assert summary["rp.epoch"] == round(7 * 4 / 24, 4) and summary["turn.epoch"] == 0.5
    assert "turn.val_loss" in summary and "rp.val_loss" not in summary
    backbone = build_backbone(CaffeNet.model_validate(BACKBONE), include_top=False)
    backbone.load_state_dict(load_file(tmp_path / "whole" / "backbone.safetensors"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tasks": {"a": {"task": "jigsaw"}}}, "jigsaw cannot share its backbone"),
        ({"tasks": {"a": {"task": "rotation", "schedule": {"steps": 3}}}}, "belong to the whole training"),
        (
            {"tasks": {"a": {"task": "rotation", "schedule": {"bach": 3}}}},
            "tasks.a.schedule.bach: unknown key 'bach'; did you mean 'batch_size'",
        ),
        ({"tasks": {"a": {"task": {**POSITION, "stem_stride": 1}}}}, "set stem_stride of the backbone"),
        (
            {"tasks": {"a": {"task": "rotation"}}, "l1_layer_mix": 0.01},
            "l1_layer_mix needs a backbone that ends with block3",
        ),
        ({"tasks": {"a": {"task": "rotation"}}, "normalization_from": "b"}, "no task is called 'b'"),
        (
            {"tasks": {key: {"task": "rotation"} for key in "abc"}, "synchronous": True},
            "10 steps are not a multiple of the 3 tasks",
        ),
    ],
)
def test_multi_task_options_refuse_errors(change: dict[str, Any], says: str):
    from ssltransfer.config.load import complete

    content = {"task": {"name": "multi-task", **change}, "backbone": "caffenet", "data": "d", "schedule": RMSPROP}
    world = {"d": {"format": "synthetic", "subset": "objects", "split": "train", "num_images": 8}}
    with pytest.raises(ConfigError) as refused:
        complete({"datasets": world, "pretexts": {"p": content}})
    assert says in str(refused.value)


def test_task_weights_equalize_the_compute():
    tasks = {"a": {"task": "relative-position"}, "b": {"task": "relative-position", "weight": 2}}
    task: Any = spec_of(tasks).task
    assert task.task_weights({"a": 10, "b": 10}) == {"a": 1 / 3500, "b": 2}
    other: Any = spec_of(tasks | {"c": {"task": "rotation"}}).task
    assert other.task_weights(dict.fromkeys("abc", 10)) == {"a": 1, "b": 2, "c": 1}


# The mix of units.


def maps_of(backbone: Any, x: Tensor) -> Tensor:
    found: Tensor = backbone(x, ["block3"])["block3"]
    return found


def test_layer_mix_of_the_last_unit_is_the_network():
    backbone = build_backbone(ResNet101V2.model_validate(DEEP), include_top=False)
    mixed = MixedBackbone(backbone)
    assert len(mixed.mix.alpha) == 23 and torch.allclose(mixed.mix.alpha, torch.full((23,), 23**-0.5))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        mixed.mix.v.zero_()[-1] = 3.0
        for module in (mixed, backbone):
            module.eval()
        assert torch.equal(maps_of(mixed, x), maps_of(backbone, x))
        assert torch.equal(mixed(x)["pool"], backbone(x)["pool"])
        mixed.mix.v.zero_()[4] = -1.0
        units = backbone.units_of(backbone(x, ["block2"])["block2"])  # type: ignore[operator]
        assert torch.allclose(maps_of(mixed, x), mixed.mix.norm(-units[4]).relu())
    with pytest.raises(LayerError, match="caffenet has no units"):
        MixedBackbone(build_backbone(CaffeNet.model_validate(BACKBONE), include_top=False))


def test_l1_layer_mix_gets_sparser_with_the_penalty(objects: Index):
    found = {}
    for strength in (0.0, 3.0):
        tasks = {"a": {"task": ROTATION}, "b": {"task": {**ROTATION, "hidden_dim": 16}}}
        schedule = {**RMSPROP, "steps": 30, "batch_size": 2, "lr": 0.05, "optimizer": "adam", "lr_schedule": "constant"}
        made = together(spec_of(tasks, DEEP, schedule, l1_layer_mix=strength), {"d": objects, "h": objects})
        tasks_made = [one.task for one in made.runs]
        assert all(isinstance(task, WithL1Penalty) for task in tasks_made)
        start = {name: value.clone() for name, value in made.backbone.state_dict().items()}
        cpu = Devices(torch.device("cpu"), 0)
        trainers = [Trainer(task, Schedule.model_validate(schedule), 0, cpu) for task in tasks_made]
        batch = Batch(torch.randint(256, (2, 3, 36, 36), dtype=torch.uint8), torch.arange(2), torch.zeros(2).long())
        for task in tasks_made:
            # Away from equal parts, where the penalty has no slope.
            task.mix.v.data += 0.3 * torch.randn(23, generator=torch.Generator().manual_seed(1))
        for _ in range(12):
            for trainer in trainers:
                train_step(trainer, batch)
        mixes = made.content()["mixes"]
        assert set(mixes) == {"a", "b"} and mixes["a"] != mixes["b"]
        for row in mixes.values():
            assert sum(share**2 for share in row) == pytest.approx(1, abs=1e-4)
        found[strength] = sum(abs(share) for row in mixes.values() for share in row)
        # The plain backbone can be used: its own norm has followed, and no weight of the mix is in it.
        assert not any("mix" in name for name in made.backbone.state_dict())
        assert not torch.equal(made.backbone.state_dict()["norm3.running_var"], start["norm3.running_var"])
    assert found[3.0] < found[0.0] - 0.5


def test_l1_penalty_is_absent_in_validation(tmp_path: Path, objects: Index):
    tasks = {"a": {"task": ROTATION}, "b": {"task": ROTATION}}
    spec = spec_of(tasks, DEEP, {**RMSPROP, "steps": 2, "batch_size": 2}, l1_layer_mix=5.0)
    made = together(spec, {"d": objects.subset(range(4)), "h": objects.subset(range(2))})
    fitted = fit_multi_task(made.runs, 2, folder=tmp_path, devices=Devices(torch.device("cpu"), 0))
    last = fitted.curve[-1]
    assert last["b.l1"] == pytest.approx(23**0.5, rel=0.02) and last["b.loss"] > 20 > last["b.val_loss"]
