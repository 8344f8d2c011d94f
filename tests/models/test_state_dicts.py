"""Tensors of a file in a backbone: prefixes, networks held twice, what may be missing; and which file is read how."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.backbones import AlexNet, ResNet18
from ssltransfer.models.build import build_backbone
from ssltransfer.models.state_dicts import load_tensors, read_tensors

SMALL = {"width_mult": 0.125, "img_size": 64}


@pytest.mark.parametrize("prefix", ["", "module.", "module.encoder_q.", "backbone.", "teacher.backbone."])
def test_load_tensors_detects_prefixes_and_ignores_heads(prefix: str):
    source = build_backbone(ResNet18(**SMALL), include_top=True, seed=5)
    tensors = {prefix + key: value for key, value in source.state_dict().items()}
    tensors |= {f"{prefix}fc.weight": torch.zeros(10, 64), "module.queue": torch.zeros(4)}
    backbone = build_backbone(ResNet18(**SMALL), include_top=True, seed=6)
    assert load_tensors(backbone, tensors, "f").endswith(f"prefix {prefix!r}, 2 left in the file")
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in backbone.state_dict().items())


def twice(one: str, two: str) -> dict[str, torch.Tensor]:
    tensors = {
        one + key: value
        for key, value in build_backbone(AlexNet(**SMALL), include_top=True, seed=1).state_dict().items()
    }
    other = build_backbone(AlexNet(**SMALL), include_top=True, seed=2).state_dict()
    return tensors | {two + key: value for key, value in other.items()}


@pytest.mark.parametrize(
    ("taken", "other"),
    [
        ("module.encoder_q.", "module.encoder_k."),
        ("module.base_encoder.", "module.momentum_encoder."),
        ("teacher.backbone.", "student.backbone."),
    ],
)
def test_load_tensors_takes_the_published_one_of_two_networks(taken: str, other: str):
    backbone = build_backbone(AlexNet(**SMALL), include_top=True)
    assert repr(taken) in load_tensors(backbone, twice(taken, other), "f")
    first = build_backbone(AlexNet(**SMALL), include_top=True, seed=1).state_dict()["features.0.weight"]
    assert torch.equal(backbone.state_dict()["features.0.weight"], first)


def test_load_tensors_refuses_ambiguous_prefixes():
    backbone = build_backbone(AlexNet(**SMALL), include_top=True)
    with pytest.raises(ArtifactError, match=r"2 times, under 'a\.', 'b\.'; select one by `prefix`"):
        load_tensors(backbone, twice("a.", "b."), "f")
    assert "prefix 'b.'" in load_tensors(backbone, twice("a.", "b."), "f", prefix="b.")


def test_load_tensors_names_missing_and_misshapen_tensors():
    tensors = dict(build_backbone(AlexNet(width_mult=0.25, img_size=64), include_top=True).state_dict())
    backbone = build_backbone(AlexNet(**SMALL), include_top=True)
    with pytest.raises(
        ArtifactError, match=r"f: does not match the backbone alexnet-w0.125-64px: features\.0\.weight has shape"
    ):
        load_tensors(backbone, tensors, "f")
    tensors = {f"m.{key}": value for key, value in backbone.state_dict().items()}
    del tensors["m.features.3.bias"]
    with pytest.raises(ArtifactError, match=r"m\.features\.3\.bias is missing \(13 of 14 tensors match\)"):
        load_tensors(backbone, tensors, "f")


def test_load_tensors_fresh_tensors_may_be_missing() -> None:
    """A file of convolutions alone fills a whole network where that is allowed, and the rest stays as it was."""
    source = build_backbone(AlexNet(**SMALL), include_top=True, seed=1).state_dict()
    tensors = {f"m.{key}": value for key, value in source.items() if key.startswith("features.")}
    backbone = build_backbone(AlexNet(**SMALL), include_top=True, seed=2)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(ArtifactError, match="is missing"):
        load_tensors(backbone, tensors, "f", fresh=["features.*"])
    said = load_tensors(backbone, tensors, "f", fresh=["classifier.*"])
    convolutions = sum(value.numel() for key, value in source.items() if key.startswith("features."))
    share = 100 * convolutions / sum(value.numel() for value in source.values())
    assert said.startswith(f"10 of 14 tensors ({share:.3g} % of the numbers), prefix 'm.'")
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, source[key] if key.startswith("features.") else before[key])
    tensors["m.classifier.1.weight"] = torch.zeros(3)
    with pytest.raises(ArtifactError, match=r"classifier\.1\.weight has shape \(3,\)"):
        load_tensors(backbone, tensors, "f", fresh=["classifier.*"])


def test_read_tensors_removes_inner_dataparallel_prefixes(tmp_path: Path) -> None:
    """DeepCluster's files: `features.module.0.weight`, beside a classifier that was not wrapped."""
    source = build_backbone(AlexNet(**SMALL), include_top=True, seed=1).state_dict()
    torch.save(
        {"state_dict": {key.replace("features.", "features.module."): v for key, v in source.items()}},
        tmp_path / "d.pth",
    )
    backbone = build_backbone(AlexNet(**SMALL), include_top=True)
    assert "prefix ''" in load_tensors(backbone, read_tensors(tmp_path / "d.pth"), "f")


def test_load_tensors_without_batch_norm_counters():
    source = build_backbone(ResNet18(**SMALL), include_top=True, seed=5).state_dict()
    tensors = {key: value for key, value in source.items() if not key.endswith("num_batches_tracked")}
    backbone = build_backbone(ResNet18(**SMALL), include_top=True)
    assert load_tensors(backbone, tensors, "f").startswith("100 of 100 tensors")
    assert all(torch.equal(value, source[key]) for key, value in backbone.state_dict().items())


def test_read_tensors_flattens_nested_dicts(tmp_path: Path):
    tensor = torch.arange(3.0)
    torch.save({"epoch": 3, "state_dict": {"a.b": tensor, "n": 1}}, tmp_path / "moco.pth")
    torch.save({"teacher": {"a": {"b": tensor}}, "optimizer": {"lr": 0.1}}, tmp_path / "dino.pth")
    torch.save({"lr": 0.1}, tmp_path / "none.pth")
    assert read_tensors(tmp_path / "moco.pth").keys() == {"a.b"}
    assert torch.equal(read_tensors(tmp_path / "dino.pth")["teacher.a.b"], tensor)
    with pytest.raises(ArtifactError, match="contains no tensors"):
        read_tensors(tmp_path / "none.pth")


def test_read_tensors_ignores_the_suffix(tmp_path: Path) -> None:
    # A header of 128 bytes begins with the same byte as a pickle.
    for wide in range(1, 40):
        safetensors.torch.save_file({"a" * wide: torch.ones(3)}, tmp_path / "w.pth")
        assert list(read_tensors(tmp_path / "w.pth")) == ["a" * wide]
    torch.save({"a": torch.ones(3)}, tmp_path / "w.safetensors")
    assert list(read_tensors(tmp_path / "w.safetensors")) == ["a"]
    with pytest.raises(ArtifactError, match="no such file"):
        read_tensors(tmp_path / "none.pth")
