"""Tensors of a file in a backbone: prefixes, networks held twice, what may be missing; and which file is read how."""

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.backbones import AlexNet, ResNet18, Timm
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone
from ssltransfer.models.checkpoint_formats import renamed
from ssltransfer.models.libraries import model_of_torchvision
from ssltransfer.models.state_dicts import by_order, load_tensors, read_tensors

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
    backbone = build_backbone(AlexNet(**SMALL), include_top=True)
    tensors = {f"m.{key}": value for key, value in backbone.state_dict().items()}
    del tensors["m.features.3.bias"]
    with pytest.raises(ArtifactError, match=r"m\.features\.3\.bias is missing \(13 of 14 tensors match\)"):
        load_tensors(backbone, tensors, "f")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_load_tensors_advises_another_width(prefix: str) -> None:
    state = build_backbone(ResNet18(width_mult=0.25, img_size=64), include_top=True).state_dict()
    backbone = build_backbone(ResNet18(img_size=64), include_top=True)
    with pytest.raises(ArtifactError, match=r"f: has the names of resnet18 with other widths; use `width_mult: 0\.25`"):
        load_tensors(backbone, {prefix + key: value for key, value in state.items()}, "f")


def test_load_tensors_of_part_of_a_network_does_not_say_several() -> None:
    """A ResNet for CIFAR has three groups of equal blocks, which are not three networks."""
    block = {
        f"layer{n}.{k}.conv{c}.weight": torch.zeros(16, 16, 3, 3) for n in (1, 2, 3) for k in (0, 1) for c in (1, 2)
    }
    tensors = {"module.conv1.weight": torch.zeros(16, 3, 3, 3)} | {
        f"module.{key}": value for key, value in block.items()
    }
    with pytest.raises(
        ArtifactError, match=r"does not match the backbone resnet18-64px: module\.conv1\.weight has shape"
    ):
        load_tensors(build_backbone(ResNet18(img_size=64), include_top=True), tensors, "f")


def test_load_tensors_prefers_names_to_shapes() -> None:
    """A small network under its own names, beside another of fitting shapes under some of them."""
    source = build_backbone(AlexNet(**SMALL), include_top=True, seed=1).state_dict()
    tensors = {f"a.{key}": value for key, value in source.items() if key != "features.0.weight"}
    tensors |= {f"b.{key}": torch.zeros(3) for key in source}
    with pytest.raises(ArtifactError, match=r"b\.features\.0\.weight has shape"):
        load_tensors(build_backbone(AlexNet(**SMALL), include_top=True), tensors, "f")


SEQUENTIAL = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def other_names(source: dict[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
    """As `nn.Sequential(*resnet.children())` names them."""
    split = {key: key.partition(".") for key in source}
    return {f"{prefix}{SEQUENTIAL[split[key][0]]}.{split[key][2]}": value for key, value in source.items()}


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_by_order_finds_tensors_under_other_names(prefix: str) -> None:
    source = build_backbone(ResNet18(**SMALL), include_top=True, seed=5).state_dict()
    tensors = other_names(source, prefix)
    if prefix:
        tensors["projection_head.0.weight"] = torch.zeros(7, 64)
    else:
        tensors |= {"9.weight": torch.zeros(10, 64), "9.bias": torch.zeros(10)}
    found = by_order(tensors, build_backbone(ResNet18(**SMALL), include_top=True).state_dict())
    assert found is not None and all(torch.equal(value, source[key]) for key, value in found.items())


def test_by_order_needs_agreement_of_all() -> None:
    source = build_backbone(ResNet18(**SMALL), include_top=True, seed=5).state_dict()
    wanted = build_backbone(ResNet18(**SMALL), include_top=True).state_dict()
    tensors = other_names(source)
    names = list(tensors)
    assert by_order({name: tensors[name] for name in reversed(names)}, wanted) is None
    assert by_order({name: tensors[name] for name in names[1:]}, wanted) is None
    assert by_order(tensors | {"0.weight": torch.zeros(1)}, wanted) is None
    assert by_order({name.replace("weight", "gamma"): value for name, value in tensors.items()}, wanted) is None
    twice = other_names(source, "a.") | other_names(source, "b.")
    assert by_order(twice, wanted) is None
    published = by_order(twice | other_names(source, "encoder_q."), wanted)
    assert published is not None and published.keys() == {key for key in wanted if "num_batches" not in key}


def test_model_of_torchvision_names_the_network_of_a_file() -> None:
    state = torchvision.models.get_model("mobilenet_v2").state_dict()
    assert model_of_torchvision({f"m.{key}": value for key, value in state.items()}) == "mobilenet_v2"
    assert model_of_torchvision(torchvision.models.get_model("resnet34").state_dict()) == "resnet34"
    del state["features.4.conv.0.0.weight"]
    assert model_of_torchvision(state) is None


INSIDE: dict[str, dict[str, tuple[int, ...]]] = {
    "squeeze and excitation": {"layer1.0.se.fc1.weight": (4, 8, 1, 1)},
    "deeper": {"layer4.2.conv1.weight": (64, 64, 3, 3)},
    "layer scale": {"layer3.1.gamma": (32,)},
    "bias of a convolution": {"conv1.bias": (8,)},
    "tokens": {"register_tokens": (1, 4, 64)},
    "norm after": {"norm.weight": (64,), "norm.bias": (64,)},
}
OUTSIDE: dict[str, dict[str, tuple[int, ...]]] = {
    "classifier": {"fc.weight": (10, 64), "fc.bias": (10,)},
    "projection head": {"projector.0.weight": (9, 64), "projector.1.weight": (9,), "projector.1.running_mean": (9,)},
    "queue": {"queue": (64, 4096)},
    "mask token": {"mask_token": (1, 1, 64)},
    "decoder of MAE": {"decoder_pos_embed": (1, 9, 32), "decoder_norm.weight": (32,)},
    "counter": {"total_ops": (1,), "layer1.total_ops": (1,)},
}


def with_more(shapes: dict[str, tuple[int, ...]], prefix: str) -> tuple[Backbone, dict[str, torch.Tensor]]:
    """A ResNet-18, and a file of it that has more tensors."""
    backbone = build_backbone(ResNet18(**SMALL), include_top=True)
    more = {name: torch.ones(shape) for name, shape in shapes.items()}
    return backbone, {prefix + key: value for key, value in (backbone.state_dict() | more).items()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("kind", INSIDE)
def test_load_tensors_refuses_more_tensors_inside_the_network(kind: str, prefix: str) -> None:
    backbone, tensors = with_more(INSIDE[kind], prefix)
    name = prefix + next(iter(INSIDE[kind]))
    with pytest.raises(ArtifactError, match=rf"^f: the file is of another network: .* but not {re.escape(name)}"):
        load_tensors(backbone, tensors, "f")
    patterns = [name.rpartition(".")[0] + "*" for name in INSIDE[kind]]
    assert load_tensors(backbone, tensors, "f", unused=patterns).startswith("100 of 100 tensors")


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("kind", OUTSIDE)
def test_load_tensors_ignores_what_is_outside_the_network(kind: str, prefix: str) -> None:
    backbone, tensors = with_more(OUTSIDE[kind], prefix)
    assert load_tensors(backbone, tensors, "f").startswith("100 of 100 tensors")


def test_load_tensors_refuses_a_deeper_transformer() -> None:
    """Its last block is a numbered child after the last one, as a classifier is, but not a linear layer."""
    timm = {"name": "timm", "img_size": 32, "model": "vit_tiny_patch16_224"}
    backbone = build_backbone(Timm.model_validate(timm), include_top=True)
    deeper = {"blocks.12.norm1.weight": torch.ones(192), "blocks.12.attn.proj.weight": torch.ones(192, 192)}
    with pytest.raises(ArtifactError, match=r"not blocks\.12\.norm1\.weight, .*2 tensors inside"):
        load_tensors(backbone, backbone.state_dict() | deeper, "f")


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


@pytest.mark.parametrize("other", ["model", "model_state_dict", "net"])
def test_two_networks_of_one_file_need_a_prefix(other: str, tmp_path: Path) -> None:
    """Without it, containers that are not part of the names would replace each other."""
    states = [build_backbone(ResNet18(**SMALL), include_top=True, seed=seed).state_dict() for seed in (1, 2)]
    torch.save({other: states[0], "state_dict": states[1]}, tmp_path / "both.pth")
    tensors, backbone = read_tensors(tmp_path / "both.pth"), build_backbone(ResNet18(**SMALL), include_top=True)
    with pytest.raises(ArtifactError, match=r"occurs 2 times, under .*; select one by `prefix`"):
        load_tensors(backbone, tensors, "f")
    load_tensors(backbone, tensors, "f", prefix=f"{other}.")
    assert torch.equal(backbone.state_dict()["conv1.weight"], states[0]["conv1.weight"])


def test_read_tensors_keeps_tensors_whose_names_differ_by_a_wrapper_alone(tmp_path: Path) -> None:
    torch.save({"a.module.weight": torch.zeros(1), "a.weight": torch.ones(1)}, tmp_path / "f.pth")
    assert read_tensors(tmp_path / "f.pth").keys() == {"a.module.weight", "a.weight"}


def test_read_tensors_accepts_plain_values_beside_tensors(tmp_path: Path) -> None:
    values = {"best": np.float32(0.5), "accuracy": np.float64(0.7), "n": np.int64(3), "output": tmp_path}
    for zipped in (True, False):
        file = tmp_path / f"{zipped}.pth"
        torch.save({"model": {"a": torch.ones(3)}, **values}, file, _use_new_zipfile_serialization=zipped)
        assert read_tensors(file).keys() == {"a"}


def test_read_tensors_names_other_formats(tmp_path: Path) -> None:
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    (tmp_path / "network.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "program.pt2")
    for file, words in (
        ("pointer.pth", "a pointer of Git LFS, not the weights; run `git lfs pull`"),
        ("network.onnx", "an ONNX program"),
        ("arrays.npz", "arrays of NumPy; save them as tensors"),
        ("program.pt2", "a program of torch.export, not a state dict"),
    ):
        with pytest.raises(ArtifactError, match=words):
            read_tensors(tmp_path / file)


def test_renamed_never_replaces_a_tensor() -> None:
    tensors = {"conv2d.weight": torch.zeros(1), "conv1.weight": torch.ones(1)}
    assert renamed(tensors, ["conv1.weight", "bn1.weight"]) == tensors


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
