"""Options that a schema allows: each of them works, or the check of the configuration refuses it before any job."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ValidationError

import toyworld
from ssltransfer.artifacts.index import Index
from ssltransfer.config import ConfigError, complete
from ssltransfer.config.backbones import BACKBONES, BackboneOptions, CaffeNet, Exported
from ssltransfer.config.backbones.libraries import LibraryModel
from ssltransfer.config.config import Config
from ssltransfer.config.formats.synthetic import SPLITS
from ssltransfer.config.methods import METHODS, Distillation
from ssltransfer.config.schedule import Schedule
from ssltransfer.config.tasks import TASKS as KINDS
from ssltransfer.config.tasks import Rotation
from ssltransfer.config.tasks.jigsawpp import LARGEST_SETS
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.data.permutations import PermutationError, min_distance_set
from ssltransfer.models.build import build_backbone
from ssltransfer.planning.inputs import input_problems
from ssltransfer.planning.networks import segmentation_problem
from ssltransfer.tasks.pretext.base import build_task
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs
from ssltransfer.training.devices import Devices
from ssltransfer.training.train_step import Trainer
from tests.helpers.option_values import allowed_values
from tests.helpers.protocol_inputs import make_model
from tests.helpers.small_tasks import TASKS, train_step

CPU = Devices(torch.device("cpu"), 0)

OWN = [kind for kind in BACKBONES if not issubclass(kind, LibraryModel | Exported)]
own = pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
NARROW = {"width_mult": 0.01}
SMALL = {"name": "caffenet", "width_mult": 0.125, "img_size": 48, "stem_stride": 2}


def checked(content: dict[str, Any]) -> Config:
    """The configuration as a run accepts it.

    Raises:
        ConfigError: it is refused when it is read, or before the first job.
    """
    config = complete(content)
    for problem in input_problems(config):
        raise ConfigError(problem)
    return config


def narrow(kind: type[BackboneOptions], **options: Any) -> BackboneOptions:
    return kind.model_validate((NARROW if kind.is_network else {}) | options)


def computes(options: BackboneOptions, size: int, layer: str) -> bool:
    network = build_backbone(options, include_top=True).eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, size, size), [layer])
    except RuntimeError:
        return False
    return True


@own
@pytest.mark.parametrize("stride", [None, 1, 2, 3, 8])
def test_accepts_is_what_the_network_computes(kind: type[BackboneOptions], stride: int | None) -> None:
    """The smallest input of the first, a middle and the last layer."""
    if stride and not kind.is_network:
        return
    fields = kind.model_fields
    lowest = next(bound.ge for bound in fields["img_size"].metadata if hasattr(bound, "ge"))
    options = narrow(kind, stem_stride=stride)
    for layer in (options.layers[0], options.base_layers[len(options.base_layers) // 2], options.layers[-1]):
        sizes: dict[bool, list[int]] = {False: [], True: []}
        for size in range(lowest, 300):
            own = options.model_copy(update={"img_size": size})
            sizes[own.accepts(size, layer)].append(size)
        least = min(sizes[True])
        assert sizes[False] == list(range(lowest, least))
        assert computes(options.model_copy(update={"img_size": least}), least, layer)
        if least > lowest:
            assert not computes(options.model_copy(update={"img_size": 300}), least - 1, layer)


@own
def test_every_allowed_option_of_a_backbone_works_or_is_refused(kind: type[BackboneOptions]) -> None:
    task = "random" if kind.is_network else "hog"
    refused, options = 0, NARROW if kind.is_network else {}
    for size in (16, 32, 64):
        for key, value in [("img_size", size), *allowed_values(kind)]:
            backbone = {"name": kind.model_fields["name"].default} | options | {"img_size": size} | {key: value}
            data = {"data": {"format": "synthetic", "subset": "objects", "split": "train", "num_images": 4}}
            try:
                entry = {"task": task, "backbone": backbone} | ({} if kind.is_network else {"data": "data"})
                config = checked({"datasets": data, "pretexts": {"model": entry}})
            except ConfigError as error:
                refused += 1
                assert "\n" not in str(error) and "pretexts.model" in str(error)
                continue
            stated = config.pretexts["model"].backbone
            if stated.width_mult > 1:
                stated = stated.model_copy(update={"width_mult": 1.1})
            network = build_backbone(stated, include_top=True)
            assert all(math.prod(shape) for shape in network.shapes().values())
    assert refused < 30


LIBRARY: list[tuple[dict[str, Any], str]] = [
    ({"name": "torchvision", "model": "resnet18", "img_size": 32}, ""),
    ({"name": "torchvision", "model": "resnet18", "width_mult": 0.5}, "no width_mult and no stem_stride; remove them"),
    ({"name": "torchvision", "model": "resnet81"}, "no classification network 'resnet81'; did you mean 'resnet18'"),
    ({"name": "torchvision", "model": "squeezenet1_0"}, "does not end with a linear layer"),
    ({"name": "torchvision", "model": "vit_b_16", "img_size": 100}, "vit_b_16 of torchvision cannot process images of"),
    ({"name": "torchvision", "model": "alexnet", "img_size": 32}, "alexnet of torchvision cannot process images of 32"),
    ({"name": "torchvision", "model": "resnet18", "return_nodes": ["layer5"]}, "has no module 'layer5'; did you mean"),
    (
        {"name": "torchvision", "model": "vit_b_16", "return_nodes": ["encoder.layers.encoder_layer_0.self_attention"]},
        "gives a tuple, neither a map nor a vector",
    ),
    ({"name": "torchvision", "model": "regnet_y_400mf"}, ""),
    ({"name": "timm", "model": "convnext_ato"}, "timm has no network 'convnext_ato'; did you mean 'convnext_atto'"),
    ({"name": "timm", "model": "convnext_atto", "img_size": 64}, ""),
    ({"name": "timm", "model": "swin_tiny_patch4_window7_224", "img_size": 128}, ""),
    ({"name": "timm", "model": "vit_small_patch16_dinov3", "img_size": 100}, "divisible by patch size"),
    ({"name": "timm", "model": "levit_128s", "img_size": 100}, "levit_128s of timm cannot process images of 100"),
    ({"name": "timm", "model": "naflexvit_base_patch16_gap", "img_size": 64}, ""),
    ({"name": "timm", "model": "vit_tiny_patch16_224", "return_nodes": ["blocks.3", "norm.cls", "norm.mean"]}, ""),
    (
        {"name": "timm", "model": "vit_tiny_patch16_224", "return_nodes": ["norm.prefix1"]},
        "norm.prefix1 is one of 1 prefix tokens of this module",
    ),
    (
        {"name": "timm", "model": "vit_tiny_patch16_224", "return_nodes": ["blocks.12.cls"]},
        "vit_tiny_patch16_224 has no module 'blocks.12'; did you mean 'blocks",
    ),
]


@pytest.mark.parametrize(("backbone", "said"), LIBRARY, ids=lambda one: str(one)[:60])
def test_networks_of_libraries_work_or_are_refused(backbone: dict[str, Any], said: str) -> None:
    content = {"pretexts": {"model": {"task": "random", "backbone": backbone}}}
    if not said:
        build_backbone(checked(content).pretexts["model"].backbone, include_top=True).shapes()
        return
    with pytest.raises(ConfigError, match=said) as error:
        checked(content)
    assert "pretexts.model.backbone: " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("command", [["estimate", "c.yaml", "--assume"], ["run", "c.yaml", "-n"]])
def test_estimate_and_dry_run_refuse_a_network(command: list[str], tmp_path: Path) -> None:
    backbone = {"name": "torchvision", "model": "vit_b_16", "img_size": 100}
    content = {"pretexts": {"model": {"task": "random", "backbone": backbone}}}
    (tmp_path / "c.yaml").write_text(json.dumps(content))
    run = subprocess.run(
        [sys.executable, "-m", "ssltransfer.cli", *command], cwd=tmp_path, text=True, capture_output=True
    )
    assert run.returncode == 1
    (line,) = [line for line in (run.stdout + run.stderr).splitlines() if "vit_b_16" in line]
    assert "pretexts.model.backbone: vit_b_16 of torchvision cannot process images of 100 pixels" in line


def test_networks_of_libraries_are_checked_at_the_size_of_a_task() -> None:
    """A ViT has one size; a tile is another."""
    data = {"data": {"format": "synthetic", "subset": "objects", "split": "train", "num_images": 4}}
    backbone = {"name": "timm", "model": "hiera_tiny_224", "img_size": 64, "return_nodes": ["blocks.0"]}
    jig = {"task": "jigsaw", "backbone": backbone, "data": "data", "schedule": {"steps": 1, "batch_size": 2}}
    with pytest.raises(ConfigError, match="neither a map nor a vector"):
        checked({"datasets": data, "pretexts": {"jig": jig}})
    backbone |= {"model": "levit_128s", "img_size": 224, "return_nodes": ["stem"]}
    with pytest.raises(ConfigError, match=r"jig\.backbone: levit_128s of timm cannot process images of 64 pixels"):
        checked({"datasets": data, "pretexts": {"jig": jig}})


def variants(kind: type[BaseModel], stated: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Options that differ in one value, also inside of options of options, such as `tiles`."""
    for key, value in allowed_values(kind):
        yield stated | {key: value}
    for key, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and key in stated:
            yield from (stated | {key: stated[key] | {k: value}} for k, value in allowed_values(inner))


@pytest.mark.parametrize("name", TASKS)
def test_every_allowed_option_of_a_task_works_or_is_refused(name: str, objects: Index) -> None:
    kind = next(kind for kind in KINDS if kind.model_fields["name"].default == TASKS[name]["name"])
    data = {"data": {"format": "synthetic", "subset": "objects", "split": "train", "num_images": 4}}
    for options in variants(kind, TASKS[name]):
        entry = {"task": options, "backbone": SMALL, "data": "data"}
        entry["schedule"] = {"steps": 1, "batch_size": 4}
        try:
            pretext = checked({"datasets": data, "pretexts": {"model": entry}}).pretexts["model"]
        except ConfigError as error:
            assert "\n" not in str(error) and "pretexts.model" in str(error)
            continue
        task = build_task(pretext.task, pretext.backbone, 0)
        batch = next(load_batches(objects, task.transform, sequential_keys(range(4), 4), seed=0))
        task(batch, batch.rng(0))["loss"].backward()


def test_every_allowed_option_of_a_schedule_works_or_is_refused(objects: Index) -> None:
    for key, value in allowed_values(Schedule):
        if key in ("compile", "epochs", "steps"):
            continue
        try:
            schedule = Schedule.model_validate({"steps": 1, "batch_size": 4} | {key: value})
        except ValidationError:
            continue
        task = build_task(Rotation(hidden_dim=16), CaffeNet(width_mult=0.05, img_size=48, stem_stride=2), 0)
        batch = next(load_batches(objects, task.transform, sequential_keys(range(4), 4), seed=0))
        train_step(Trainer(task, schedule, 0, CPU), batch)


@own
def test_segmentation_with_the_usual_padding_covers_images(kind: type[BackboneOptions]) -> None:
    """So that it need not be built before a run."""
    options = kind.model_validate({})
    if options.is_network:
        assert segmentation_problem(options, 100) is None


def test_splits_of_synthetic_images_are_those_of_the_generator() -> None:
    assert {name: subset.splits for name, subset in toyworld.SUBSETS.items() if subset.splits} == SPLITS


@pytest.mark.parametrize("distance", LARGEST_SETS)
def test_largest_sets_of_permutations_are_found(distance: int) -> None:
    if distance > 6:  # the others take half a minute
        assert len(min_distance_set(LARGEST_SETS[distance], min_distance=distance)) == LARGEST_SETS[distance]
        with pytest.raises(PermutationError, match=f"Only {LARGEST_SETS[distance]} permutations"):
            min_distance_set(LARGEST_SETS[distance] + 1, min_distance=distance)


SETS = {
    "a": {"format": "synthetic", "subset": "objects", "split": "train", "num_images": 40},
    "b": {"format": "synthetic", "subset": "objects", "split": "test", "num_images": 20},
    "rooms": {"format": "synthetic", "subset": "rgbd", "split": "train", "num_images": 20, "targets": "depth"},
    "rooms-test": {"format": "synthetic", "subset": "rgbd", "split": "test", "num_images": 20, "targets": "depth"},
    "boxes": {"format": "synthetic", "subset": "voc", "split": "trainval", "num_images": 20, "targets": "boxes"},
    "boxes-test": {"format": "synthetic", "subset": "voc", "split": "test", "num_images": 20, "targets": "boxes"},
    "masks": {"format": "synthetic", "subset": "voc", "split": "trainval", "num_images": 20, "targets": "masks"},
    "masks-test": {"format": "synthetic", "subset": "voc", "split": "test", "num_images": 20, "targets": "masks"},
    "voc": {"format": "synthetic", "subset": "voc", "split": "trainval", "num_images": 20},
    "voc-test": {"format": "synthetic", "subset": "voc", "split": "test", "num_images": 20},
}
SCHEDULE = {"steps": 1, "batch_size": 2}
ROTATION = {"task": "rotation", "data": "a", "schedule": SCHEDULE}


def pretext(task: Any, backbone: Any, **more: Any) -> Any:
    return {"pretexts": {"m": ROTATION | {"task": task, "backbone": backbone} | more}}


def evaluated(protocol: Any, backbone: Any = "caffenet", data: tuple[str, str] = ("a", "b"), **more: Any) -> Any:
    entry = {"protocol": protocol, "models": ["m"], "baselines": [], "train": data[0], "test": data[1]} | more
    return {"pretexts": {"m": ROTATION | {"backbone": backbone}}, "evaluations": {"e": entry}}


def attention(teacher: str, task: str | dict[str, Any]) -> Any:
    method = {"name": "attention-transfer", "teacher": "m", "task": task}
    student = {"method": method, "data": "a", "backbone": "caffenet", "schedule": SCHEDULE}
    return pretext(teacher, "caffenet") | {"students": {"s": student}}


def mapped(return_nodes: Sequence[str] = ("norm", "norm.cls"), **method: Any) -> Any:
    """A student of a vision transformer's map."""
    vit = {"name": "timm", "model": "vit_tiny_patch16_224", "img_size": 64, "return_nodes": return_nodes}
    method |= {"name": "feature-distillation", "teacher": "m", "map_weight": 1}
    student = {"method": method, "data": "a", "backbone": "resnet18", "schedule": SCHEDULE}
    return {"pretexts": {"m": {"task": "random", "backbone": vit}}, "students": {"s": student}}


REFUSED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "pooling of a vector of a residual network": (
        lambda: evaluated({"name": "knn", "layer": "pool", "pool": {"avg": 1}}, "resnet18"),
        "evaluations.e.protocol.pool: pool of resnet18 is a vector and cannot be pooled; remove the key.",
    ),
    "pooling of the last layer": (
        lambda: evaluated({"name": "linear", "pool": {"max": 2}}, "mobilenet-v2"),
        "evaluations.e.protocol.pool: pool of mobilenet-v2 is a vector",
    ),
    "pooling of stored features": (
        lambda: evaluated("knn", "vgg19-bn") | {"features": {"f": {"model": "m", "layer": "fc6", "pool": {"max": 2}}}},
        "features.f.pool: fc6 of vgg19-bn is a vector",
    ),
    "pooling of a teacher": (
        lambda: (
            evaluated("knn", "resnet18")
            | {
                "students": {
                    "s": {
                        "method": {"name": "regression", "teacher": "m", "teacher_pool": {"avg": 1}},
                        "data": "a",
                        "backbone": "resnet18",
                        "schedule": SCHEDULE,
                    }
                }
            }
        ),
        "students.s.method.teacher_pool: pool of resnet18 is a vector",
    ),
    "map of an unknown layer": (
        lambda: mapped(map_layer="block5"),
        "students.s.method.map_layer: resnet18 needs a map, but no layer 'block5'; its maps are conv1, block1, ",
    ),
    "map of a vector": (
        lambda: mapped(teacher_map_layer="norm.cls"),
        "teacher_map_layer: timm-vit_tiny_patch16_224-norm+norm.cls-64px needs a map, but norm.cls is a vector; "
        "its maps are norm.",
    ),
    "map of a vector of a further teacher": (
        lambda: mapped(
            further_teachers=[{"teacher": "m"}, {"teacher": "m", "map_weight": 1, "teacher_map_layer": "norm.cls"}]
        ),
        "students.s.method.further_teachers.1.teacher_map_layer: timm-vit_tiny_patch16_224-norm+norm.cls-64px needs a ",
    ),
    "unknown layer of a further teacher": (
        lambda: mapped(further_teachers=[{"teacher": "m", "teacher_layer": "fc6"}]),
        "students.s.method.further_teachers.0.teacher_layer: ",
    ),
    "unknown further teacher": (
        lambda: mapped(further_teachers=[{"teacher": "n"}]),
        "students.s.method.further_teachers.0.teacher: no model is called 'n'",
    ),
    "map of a network without maps": (
        lambda: mapped(["norm.cls"]),
        "needs a map, but every layer is a vector; set `return_nodes` of the backbone",
    ),
    "batch norm of one image": (
        lambda: mapped() | {"students": {"s": mapped()["students"]["s"] | {"schedule": {"steps": 1, "batch_size": 1}}}},
        "students.s.schedule: the head mlp has batch norms; set batch_size and micro_batch_size to at least 2",
    ),
    "tokens as the map of a teacher": (lambda: mapped(teacher_layer="norm.cls"), ""),
    "depth of a vector": (
        lambda: evaluated({"name": "depth", "layer": "pool"}, "resnet18", ("rooms", "rooms-test")),
        "evaluations.e.protocol.layer: depth needs a map, which pool of m (resnet18) is not; its maps are conv1, ",
    ),
    "depth of a missing layer": (
        lambda: evaluated({"name": "depth", "layer": "conv5"}, "resnet18", ("rooms", "rooms-test")),
        "has no layer 'conv5'",
    ),
    "depth of small crops": (
        lambda: evaluated({"name": "depth", "crop": [32, 32]}, "caffenet", ("rooms", "rooms-test")),
        "",
    ),
    "depth of smaller crops": (
        lambda: evaluated({"name": "depth", "crop": [32, 16]}, "caffenet", ("rooms", "rooms-test")),
        "evaluations.e.protocol.crop: 16 pixels are too small for conv5 of caffenet; increase it.",
    ),
    "depth of a library": (
        lambda: evaluated({"name": "depth"}, {"name": "torchvision", "model": "resnet18"}, ("rooms", "rooms-test")),
        "depth needs a map, which every layer of m (torchvision-resnet18) is not; set `return_nodes` of the backbone",
    ),
    "a teacher's normalization": (
        lambda: attention("jigsaw", "jigsaw++"),
        "students.s.method: jigsaw++ normalizes images by `per-image`, but the teacher m by `per-channel`; name a "
        "teacher with the same normalization.",
    ),
    "a teacher's normalization that an option decides": (
        lambda: attention("jigsaw", {"name": "rotation", "augment": "inception"}),
        "students.s.method: rotation normalizes images by `half`, but the teacher m by `per-channel`; name a ",
    ),
    "a teacher with the same normalization": (lambda: attention("jigsaw", "jigsaw"), ""),
    "frozen layers": (
        lambda: evaluated({"name": "fast-rcnn", "freeze_at": 6}, "caffenet", ("boxes", "boxes-test")),
        "evaluations.e.protocol.freeze_at: the map of m (caffenet) has 5 layers; use at most 5.",
    ),
    "frozen blocks": (
        lambda: evaluated({"name": "faster-rcnn", "freeze_at": 5}, "resnet18", ("boxes", "boxes-test")),
        "freeze_at: the map of m (resnet18) has 4 layers; use at most 4.",
    ),
    "a strided stem of a detector": (
        lambda: evaluated({"name": "fast-rcnn"}, {"name": "vgg16", "stem_stride": 8}, ("boxes", "boxes-test")),
        "images of 64 pixels are too small for conv5_3 of m (vgg16-s8)",
    ),
    "a last layer of a network without fc7": (
        lambda: evaluated({"name": "voc-classification", "trainable": "fc8"}, "caffenet", ("voc", "voc-test")),
        "evaluations.e.protocol.trainable: m has no weights of fc6, fc7; set `trainable: all`",
    ),
    "cells of a segmentation": (
        lambda: evaluated({"name": "segmentation", "padding": 0}, "caffenet", ("masks", "masks-test")),
        "evaluations.e: m: caffenet: the cells of its map do not cover the edges of an image; raise `padding`",
    ),
    "too many neighbors": (
        lambda: evaluated({"name": "knn", "k": 41}),
        "evaluations.e.protocol.k: 41 is too large for the 40 images of a; use at most 40.",
    ),
    "too many clusters": (lambda: evaluated({"name": "cluster-alignment", "k": 41}), "41 is too large for the 40"),
    "too many ranks": (
        lambda: evaluated({"name": "retrieval", "recall_at": [1, 20]}, train=""),
        "evaluations.e.protocol.recall_at: 20 is too large for the 20 images of b; use at most 19.",
    ),
    "small images": (
        lambda: {"pretexts": {"m": {"task": "random", "backbone": {"name": "caffenet", "img_size": 32}}}},
        "pretexts.m.backbone.img_size: images of 32 pixels are too small for layer fc7 of caffenet-32px; "
        "increase it, or set `stem_stride: 1`.",
    ),
    "small tiles": (
        lambda: {
            "pretexts": {"m": ROTATION | {"task": {"name": "jigsaw", "tiles": {"tile": 16}}, "backbone": "vgg16"}}
        },
        "",
    ),
    "smaller tiles": (
        lambda: {
            "pretexts": {"m": ROTATION | {"task": {"name": "jigsaw", "tiles": {"tile": 12}}, "backbone": "vgg16"}}
        },
        "pretexts.m.task: its inputs of 12 pixels do not suit layer conv5_3 of vgg16; increase their size.",
    ),
    "tiles of another size than fc6": (
        lambda: {"pretexts": {"m": ROTATION | {"task": "jigsaw", "backbone": "vgg19-bn"}}},
        "its inputs of 64 pixels do not suit layer fc7 of vgg19-bn; set `img_size: 64` of the backbone.",
    ),
    "tiles without a map": (
        lambda: {
            "pretexts": {"m": ROTATION | {"task": "jigsaw", "backbone": {"name": "torchvision", "model": "resnet18"}}}
        },
        "jigsaw reads a map, but all layers of torchvision-resnet18 are vectors; name a module with a map in "
        "`return_nodes` of the backbone, such as [layer4].",
    ),
    "strides of a task": (
        lambda: {
            "pretexts": {
                "m": ROTATION
                | {
                    "task": {"name": "relative-position", "stem_stride": 2},
                    "backbone": {"name": "torchvision", "model": "resnet18", "return_nodes": ["layer4"]},
                }
            }
        },
        "pretexts.m.task: networks of torchvision keep their first stride; remove `stem_stride` of the task.",
    ),
    "permutations": (
        lambda: {
            "pretexts": {"m": ROTATION | {"task": {"name": "jigsaw++", "min_distance": 6}, "backbone": "caffenet"}}
        },
        "only 338 permutations have a min_distance of 6; lower it or `permutations`",
    ),
    "occluders": (
        lambda: {
            "pretexts": {"m": ROTATION | {"task": {"name": "jigsaw++", "occluders": [10]}, "backbone": "caffenet"}}
        },
        "pretexts.m.task.occluders.0: input should be less than or equal to 9",
    ),
    "nesterov": (
        lambda: {
            "pretexts": {
                "m": ROTATION | {"backbone": "caffenet", "schedule": SCHEDULE | {"nesterov": True, "momentum": 0}}
            }
        },
        "nesterov needs the optimizer sgd with a momentum; remove it",
    ),
    "a stride of a missing block": (
        lambda: {"pretexts": {"m": {"task": "random", "backbone": {"name": "resnet101-v2", "block4_stride": 1}}}},
        "block4_stride belongs to block4; set `block4: true` or remove it",
    ),
    "splits": (
        lambda: {"datasets": {"v": SETS["voc"] | {"split": "train"}}},
        "datasets.v: the subset voc has no split 'train'; use trainval or test",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_check_refuses_what_a_job_would_refuse(case: str) -> None:
    content, said = REFUSED[case]
    whole = {"datasets": copy.deepcopy(SETS)} | content()
    if not said:
        checked(whole)
        return
    with pytest.raises(ConfigError) as error:
        checked(whole)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("teacher"), CaffeNet.model_validate(SMALL), seed=1)


METHODS_OF: dict[str, dict[str, Any]] = {
    **{kind.model_fields["name"].default: {"teacher": "m"} for kind in METHODS if issubclass(kind, Distillation)},
    "attention-transfer": {"teacher": "m", "task": TASKS["rotation"]},
    "supervised": {},
}


@pytest.mark.parametrize("name", METHODS_OF)
def test_every_allowed_option_of_a_method_works_or_is_refused(name: str, objects: Index, teacher: Path) -> None:
    kind = next(kind for kind in METHODS if kind.model_fields["name"].default == name)
    for options in variants(kind, {"name": name, **METHODS_OF[name]}):
        student = {"method": options, "data": "a", "backbone": SMALL, "schedule": {"steps": 1, "batch_size": 4}}
        try:
            spec = checked(
                {"datasets": SETS, "students": {"s": student}, "pretexts": {"m": {"task": "random", "backbone": SMALL}}}
            ).students["s"]
        except ConfigError as error:
            assert "\n" not in str(error) and "students.s" in str(error)
            continue
        inputs = StudentInputs(spec, objects, teacher=teacher)
        if getattr(spec.method, "precompute_teacher", False):
            continue
        task = STUDENT_METHODS[type(spec.method)](inputs)
        task.on_train_start(objects, CPU)
        batch = next(load_batches(objects, task.transform, sequential_keys(range(4), 4), seed=0))
        train_step(Trainer(task, spec.schedule, 0, CPU), batch)
        task.after_step(0)
