import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from ssltransfer.artifacts.files import ArtifactError, file_digest, read_json, write_json
from ssltransfer.config.backbones import BackboneOptions, CaffeNet, ResNet18, Vgg16
from ssltransfer.models.build import build_backbone, rebuild
from ssltransfer.models.normalize import normalize
from ssltransfer.models.weights import read_model, write_model

SMALL = {"width_mult": 0.125, "img_size": 64}


def written(folder: Path, options: BackboneOptions, *, include_top: bool = False, seed: int = 0) -> Path:
    content = write_model(
        folder, build_backbone(options, include_top=include_top, seed=seed), "per-image", {"task": "x"}
    )
    write_json(folder / "manifest.json", {"stage": "pretext", **content})
    return folder / "manifest.json"


@pytest.mark.parametrize("options", [CaffeNet(**SMALL), Vgg16(**SMALL), ResNet18(**SMALL)], ids=lambda o: o.name)
@pytest.mark.parametrize("include_top", [False, True])
def test_write_model_read_model_round_trip(tmp_path: Path, options: BackboneOptions, include_top: bool):
    model = read_model(written(tmp_path / "one", options, include_top=include_top, seed=3))
    backbone = build_backbone(options, include_top=include_top, seed=3).eval().to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    layers = list(backbone.layers)
    assert model.backbone.layers == backbone.layers and model.normalization == "per-image" and model.name == "one"
    assert model.view.size == 64 and model.view.short_side == options.short_side
    expected = backbone(normalize(images, "per-image"), layers)
    for name, value in model.layers_of(images, layers).items():
        assert torch.equal(value, expected[name])
    assert not model.backbone.training and not any(p.requires_grad for p in model.backbone.parameters())
    assert file_digest(tmp_path / "one" / "backbone.safetensors") == model.digest


def test_write_model_gives_equal_bytes_for_equal_weights(tmp_path: Path):
    for name in ("one", "two"):
        written(tmp_path / name, CaffeNet(**SMALL), seed=1)
    for file in ("backbone.safetensors", "backbone.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_models_and_their_copies_are_in_channels_last(tmp_path: Path):
    """Maps keep the layout of the weights, so the whole network is faster."""
    model = read_model(written(tmp_path, ResNet18(**SMALL)))
    for backbone in (model.backbone, rebuild(model.backbone)):
        block1 = backbone(torch.zeros(2, 3, 64, 64), ["block1"])["block1"]
        assert block1.is_contiguous(memory_format=torch.channels_last) and not block1.is_contiguous()


def test_written_resnet_loads_in_torchvision(tmp_path: Path):
    written(tmp_path, ResNet18())
    theirs = torchvision.models.resnet18()
    missing, unexpected = theirs.load_state_dict(
        safetensors.torch.load_file(tmp_path / "backbone.safetensors"), strict=False
    )
    assert missing == ["fc.weight", "fc.bias"] and not unexpected


def test_read_model_refuses_other_weights(tmp_path: Path):
    manifest = written(tmp_path / "one", CaffeNet(**SMALL), seed=1)
    written(tmp_path / "two", CaffeNet(**SMALL), seed=2)
    (tmp_path / "two" / "backbone.safetensors").replace(tmp_path / "one" / "backbone.safetensors")
    with pytest.raises(ArtifactError, match=r"not the weights of manifest\.json"):
        read_model(manifest)


def test_read_model_refuses_different_activations(tmp_path: Path):
    """The digests agree, but the network computes something else: as if the backbone's code had changed."""
    manifest = written(tmp_path / "one", CaffeNet(**SMALL), seed=1)
    written(tmp_path / "two", CaffeNet(**SMALL), seed=2)
    about = read_json(tmp_path / "one" / "backbone.json")
    about["activations"] = read_json(tmp_path / "two" / "backbone.json")["activations"]
    write_json(tmp_path / "one" / "backbone.json", about)
    with pytest.raises(ArtifactError, match="on fixed inputs its last layer gives"):
        read_model(manifest)


def test_read_model_refuses_another_architecture(tmp_path: Path):
    manifest = written(tmp_path, CaffeNet(**SMALL))
    about = read_json(tmp_path / "backbone.json")
    about["backbone"] = json.loads(CaffeNet(width_mult=0.25, img_size=64).canonical())
    write_json(tmp_path / "backbone.json", about)
    with pytest.raises(
        ArtifactError, match=r"does not match the backbone caffenet-w0.25-64px: conv1.weight has shape \(16,"
    ):
        read_model(manifest)


def test_read_model_refuses_other_manifests(tmp_path: Path):
    write_json(tmp_path / "manifest.json", {"stage": "cluster"})
    with pytest.raises(ArtifactError, match="not the manifest of a model"):
        read_model(tmp_path / "manifest.json")
