"""The stage itself: what it leaves, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ssltransfer.artifacts.files import ArtifactError, file_digest, read_json
from ssltransfer.artifacts.index import Index, read_index, write_index
from ssltransfer.config.backbones import HogWords
from ssltransfer.config.entities import Pretext
from ssltransfer.models.build import build_backbone
from ssltransfer.models.hog_words import hog
from ssltransfer.models.weights import read_model
from ssltransfer.stages import pretext
from ssltransfer.tasks.pretext.hog import sample_descriptors
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import TrainingError

BACKBONE = {"name": "caffenet", "width_mult": 0.125, "img_size": 48, "stem_stride": 2}
ROTATION = {"name": "rotation", "hidden_dim": 16, "augment": "crop"}


def spec_of(task: dict[str, Any] | str, backbone: dict[str, Any] = BACKBONE, **more: Any) -> Pretext:
    return Pretext.model_validate({"task": task, "backbone": backbone, **more})


def test_pretext_stage_writes_model_and_manifest(tmp_path: Path, objects_path: Path, objects_val_path: Path):
    spec = spec_of(ROTATION, data="d", val="h", schedule={"epochs": 1, "batch_size": 16, "lr": 0.01})
    output = tmp_path / "rot" / "manifest.json"
    pretext.run(spec, output=output, data=objects_path, val=objects_val_path, threads=1)
    manifest = read_json(output)
    assert manifest["stage"] == "pretext" and manifest["normalize"] == "imagenet"
    assert manifest["layers"] == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert manifest["weights"] == file_digest(output.parent / "backbone.safetensors")
    assert manifest["curve"] == file_digest(output.parent / "curve.jsonl")
    rows = [json.loads(line) for line in (output.parent / "curve.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[-1].keys() >= {"loss", "accuracy", "val_loss", "val_accuracy", "lr", "epoch"}
    assert read_json(output.parent / "run.json").keys() >= {"seconds", "peak_memory_mb", "torch", "images_per_second"}
    tensors = safetensors.torch.load_file(output.parent / "backbone.safetensors")
    assert set(tensors) == {f"conv{n}.{kind}" for n in range(1, 6) for kind in ("weight", "bias")}
    assert not torch.equal(
        tensors["conv1.weight"], build_backbone(spec.backbone, include_top=False).state_dict()["conv1.weight"]
    )
    assert read_model(output).backbone.options == spec.backbone
    assert not list(output.parent.glob("work/*/checkpoint.pt"))


def test_pretext_stage_stops_at_nonfinite_loss(tmp_path: Path, objects_path: Path):
    spec = spec_of(ROTATION, data="d", schedule={"steps": 20, "batch_size": 8, "lr": 1e30})
    output = tmp_path / "manifest.json"
    with pytest.raises(TrainingError) as caught:
        pretext.run(spec, output=output, data=objects_path, threads=1)
    message = str(caught.value)
    assert message.startswith("The loss is not finite at step ") and "lower the learning rate" in message
    assert "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    (kept,) = tmp_path.glob("work/*/not_finite.pt")
    assert torch.load(kept, weights_only=True)["images"].dtype == torch.uint8


def test_pretext_stage_refuses_an_empty_index(tmp_path: Path, objects: Index):
    empty = Index(objects.root, [], objects.labels[:0], objects.classes, objects.sizes[:0], [])
    write_index(tmp_path / "empty.parquet", empty)
    spec = spec_of(ROTATION, data="d", schedule={"steps": 2, "batch_size": 8})
    with pytest.raises(TrainingError, match="no images to train on"):
        pretext.run(spec, output=tmp_path / "m" / "manifest.json", data=tmp_path / "empty.parquet", threads=1)


def test_pretext_stage_writes_the_random_network(tmp_path: Path):
    for name in ("one", "two"):
        pretext.run(spec_of("random", seed=3), output=tmp_path / name / "manifest.json", threads=1)
    for file in ("manifest.json", "backbone.safetensors", "backbone.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    model = read_model(tmp_path / "one" / "manifest.json")
    assert model.normalization == "imagenet" and model.backbone.layers[-2:] == ("fc6", "fc7")
    own = build_backbone(model.backbone.options, include_top=True, seed=3).state_dict()
    assert all(torch.equal(value, own[key]) for key, value in model.backbone.state_dict().items())


def hog_spec(**more: Any) -> Pretext:
    task = {"name": "hog", "num_descriptors": 600, "max_iter": 5} | more
    return spec_of(task, {"name": "hog-words", "vocabulary_size": 16, "img_size": 64}, data="d")


def test_hog_vocabulary_is_a_k_means(tmp_path: Path, objects_path: Path):
    for name in ("one", "two"):
        pretext.run(hog_spec(), output=tmp_path / name / "manifest.json", data=objects_path, threads=1)
    one, two = (tmp_path / name / "backbone.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert read_json(tmp_path / "one" / "manifest.json")["descriptors"] == 588  # 12 images of 49
    assert read_json(tmp_path / "one" / "manifest.json")["images"] == 12
    vocabulary = safetensors.torch.load_file(one)["vocabulary"]
    index = read_index(objects_path)
    sample, _ = sample_descriptors(
        index, 600, HogWords(vocabulary_size=16, img_size=64), 0, Devices(torch.device("cpu"), 0)
    )
    points = torch.from_numpy(sample)
    error = torch.cdist(points, vocabulary).amin(1).square().sum()
    spread = (points - points.mean(0)).square().sum()
    assert error < 0.7 * spread
    # Nearly a fixed point of Lloyd's step after five of them.
    nearest = torch.cdist(points, vocabulary).argmin(1)
    means = torch.stack([points[nearest == word].mean(0) for word in nearest.unique()])
    better = torch.cdist(points, means).amin(1).square().sum()
    assert better <= error * 1.0001 and better > 0.95 * error


def test_sample_descriptors_spreads_over_images(objects: Index):
    options = HogWords(img_size=64)
    cpu = Devices(torch.device("cpu"), 0)
    found, images = sample_descriptors(objects, 48 * 49, options, 0, cpu)
    assert found.shape == (48 * 49, 36) and images == 48  # all there are: 7x7 an image
    some, images = sample_descriptors(objects, 500, options, 0, cpu)
    assert images == 10 and len(some) == 490  # 49 of 49 from every fifth image or so
    rows = {row.tobytes() for row in found}
    assert all(row.tobytes() in rows for row in some)
    tiny, images = sample_descriptors(objects, 7, options, 0, cpu)
    assert len(tiny) == 7 and images == 1
    assert hog(torch.rand(1, 64, 64), 8).shape[1] == 49


def test_hog_refuses_more_words_than_descriptors(tmp_path: Path, objects_path: Path):
    with pytest.raises(ArtifactError, match="10 HOG descriptors of 1 images are too few for 16 words"):
        pretext.run(hog_spec(num_descriptors=10), output=tmp_path / "manifest.json", data=objects_path, threads=1)
