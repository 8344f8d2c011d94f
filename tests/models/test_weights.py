import json
import os
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from ssltransfer.artefacts.files import ArtefactError, digest_of, read_json, write_json
from ssltransfer.config.trunks import AlexNet, CaffeNet, ResNet18, TrunkOptions, Vgg16
from ssltransfer.models.build import build_trunk
from ssltransfer.models.normalise import normalise
from ssltransfer.models.weights import load_tensors, read_model, read_tensors, write_model

SMALL = {"width": 0.125, "size": 64}


def written(folder: Path, options: TrunkOptions, *, top: bool = False, seed: int = 0) -> Path:
    content = write_model(folder, build_trunk(options, top=top, seed=seed), "per-picture", {"task": "x"})
    write_json(folder / "manifest.json", {"stage": "pretext", **content})
    return folder / "manifest.json"


@pytest.mark.parametrize("options", [CaffeNet(**SMALL), Vgg16(**SMALL), ResNet18(**SMALL)], ids=lambda o: o.name)
@pytest.mark.parametrize("top", [False, True])
def test_what_is_written_is_read(tmp_path: Path, options: TrunkOptions, top: bool):
    model = read_model(written(tmp_path / "one", options, top=top, seed=3))
    trunk = build_trunk(options, top=top, seed=3).eval()
    pictures = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    layers = list(trunk.layers)
    assert model.trunk.layers == trunk.layers and model.rule == "per-picture" and model.name == "one"
    assert model.view.size == 64 and model.view.short == options.short_side
    expected = trunk(normalise(pictures, "per-picture"), layers)
    for name, value in model.layers_of(pictures, layers).items():
        assert torch.equal(value, expected[name])
    assert not model.trunk.training and not any(p.requires_grad for p in model.trunk.parameters())
    assert digest_of(tmp_path / "one" / "trunk.safetensors") == model.digest


def test_equal_weights_give_equal_bytes(tmp_path: Path):
    for name in ("one", "two"):
        written(tmp_path / name, CaffeNet(**SMALL), seed=1)
    for file in ("trunk.safetensors", "trunk.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_written_resnet_loads_in_plain_torchvision(tmp_path: Path):
    written(tmp_path, ResNet18())
    theirs = torchvision.models.resnet18()
    missing, unexpected = theirs.load_state_dict(
        safetensors.torch.load_file(tmp_path / "trunk.safetensors"), strict=False
    )
    assert missing == ["fc.weight", "fc.bias"] and not unexpected


def test_a_swapped_file_of_weights_is_refused(tmp_path: Path):
    manifest = written(tmp_path / "one", CaffeNet(**SMALL), seed=1)
    written(tmp_path / "two", CaffeNet(**SMALL), seed=2)
    (tmp_path / "two" / "trunk.safetensors").replace(tmp_path / "one" / "trunk.safetensors")
    with pytest.raises(ArtefactError, match=r"not the weights that manifest\.json speaks of"):
        read_model(manifest)


def test_activations_that_differ_are_refused(tmp_path: Path):
    """The digests agree, but the network computes something else: as if the trunk's code had changed."""
    manifest = written(tmp_path / "one", CaffeNet(**SMALL), seed=1)
    written(tmp_path / "two", CaffeNet(**SMALL), seed=2)
    about = read_json(tmp_path / "one" / "trunk.json")
    about["activations"] = read_json(tmp_path / "two" / "trunk.json")["activations"]
    write_json(tmp_path / "one" / "trunk.json", about)
    with pytest.raises(ArtefactError, match="on fixed inputs its last layer gives"):
        read_model(manifest)


def test_a_file_of_another_architecture_is_refused(tmp_path: Path):
    manifest = written(tmp_path, CaffeNet(**SMALL))
    about = read_json(tmp_path / "trunk.json")
    about["trunk"] = json.loads(CaffeNet(width=0.25, size=64).canonical())
    write_json(tmp_path / "trunk.json", about)
    with pytest.raises(ArtefactError, match=r"of this width and size: conv1.weight has shape \(16,"):
        read_model(manifest)


def test_a_manifest_of_something_else_is_refused(tmp_path: Path):
    write_json(tmp_path / "manifest.json", {"stage": "cluster"})
    with pytest.raises(ArtefactError, match="not a manifest of a model"):
        read_model(tmp_path / "manifest.json")


@pytest.mark.parametrize("prefix", ["", "module.", "module.encoder_q.", "backbone.", "teacher.backbone."])
def test_prefixes_are_found_and_heads_left(prefix: str):
    source = build_trunk(ResNet18(**SMALL), top=True, seed=5)
    tensors = {prefix + key: value for key, value in source.state_dict().items()}
    tensors |= {f"{prefix}fc.weight": torch.zeros(10, 64), "module.queue": torch.zeros(4)}
    trunk = build_trunk(ResNet18(**SMALL), top=True, seed=6)
    assert load_tensors(trunk, tensors, "f").endswith(f"prefix {prefix!r}, 2 left in the file")
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in trunk.state_dict().items())


def twice(one: str, two: str) -> dict[str, torch.Tensor]:
    tensors = {one + key: value for key, value in build_trunk(AlexNet(**SMALL), top=True, seed=1).state_dict().items()}
    other = build_trunk(AlexNet(**SMALL), top=True, seed=2).state_dict()
    return tensors | {two + key: value for key, value in other.items()}


@pytest.mark.parametrize(
    ("taken", "other"),
    [
        ("module.encoder_q.", "module.encoder_k."),
        ("module.base_encoder.", "module.momentum_encoder."),
        ("teacher.backbone.", "student.backbone."),
    ],
)
def test_of_two_networks_the_published_one_is_taken(taken: str, other: str):
    trunk = build_trunk(AlexNet(**SMALL), top=True)
    assert repr(taken) in load_tensors(trunk, twice(taken, other), "f")
    first = build_trunk(AlexNet(**SMALL), top=True, seed=1).state_dict()["features.0.weight"]
    assert torch.equal(trunk.state_dict()["features.0.weight"], first)


def test_of_two_networks_that_fit_alike_one_must_be_named():
    trunk = build_trunk(AlexNet(**SMALL), top=True)
    with pytest.raises(ArtefactError, match=r"2 times, under 'a\.', 'b\.'; say which by `prefix`"):
        load_tensors(trunk, twice("a.", "b."), "f")
    assert "prefix 'b.'" in load_tensors(trunk, twice("a.", "b."), "f", prefix="b.")


def test_another_width_and_a_missing_tensor_are_named():
    tensors = dict(build_trunk(AlexNet(width=0.25, size=64), top=True).state_dict())
    trunk = build_trunk(AlexNet(**SMALL), top=True)
    with pytest.raises(ArtefactError, match=r"f: not a alexnet of this width and size: features\.0\.weight has shape"):
        load_tensors(trunk, tensors, "f")
    tensors = {f"m.{key}": value for key, value in trunk.state_dict().items()}
    del tensors["m.features.3.bias"]
    with pytest.raises(ArtefactError, match=r"m\.features\.3\.bias is missing \(13 of 14 tensors match\)"):
        load_tensors(trunk, tensors, "f")


def test_what_may_stay_fresh_is_named() -> None:
    """A file of convolutions alone fills a whole network where that is allowed, and the rest stays as it was."""
    source = build_trunk(AlexNet(**SMALL), top=True, seed=1).state_dict()
    tensors = {f"m.{key}": value for key, value in source.items() if key.startswith("features.")}
    trunk = build_trunk(AlexNet(**SMALL), top=True, seed=2)
    before = {key: value.clone() for key, value in trunk.state_dict().items()}
    with pytest.raises(ArtefactError, match="is missing"):
        load_tensors(trunk, tensors, "f", fresh=["features.*"])
    said = load_tensors(trunk, tensors, "f", fresh=["classifier.*"])
    convolutions = sum(value.numel() for key, value in source.items() if key.startswith("features."))
    share = 100 * convolutions / sum(value.numel() for value in source.values())
    assert said.startswith(f"10 of 14 tensors ({share:.3g} % of the numbers), prefix 'm.'")
    for key, value in trunk.state_dict().items():
        assert torch.equal(value, source[key] if key.startswith("features.") else before[key])
    tensors["m.classifier.1.weight"] = torch.zeros(3)
    with pytest.raises(ArtefactError, match=r"classifier\.1\.weight has shape \(3,\)"):
        load_tensors(trunk, tensors, "f", fresh=["classifier.*"])


def test_a_network_that_was_wrapped_inside_is_found(tmp_path: Path) -> None:
    """DeepCluster's files: `features.module.0.weight`, beside a classifier that was not wrapped."""
    source = build_trunk(AlexNet(**SMALL), top=True, seed=1).state_dict()
    torch.save(
        {"state_dict": {key.replace("features.", "features.module."): v for key, v in source.items()}},
        tmp_path / "d.pth",
    )
    trunk = build_trunk(AlexNet(**SMALL), top=True)
    assert "prefix ''" in load_tensors(trunk, read_tensors(tmp_path / "d.pth"), "f")


def test_old_files_without_counters_of_batch_norm_are_taken():
    source = build_trunk(ResNet18(**SMALL), top=True, seed=5).state_dict()
    tensors = {key: value for key, value in source.items() if not key.endswith("num_batches_tracked")}
    trunk = build_trunk(ResNet18(**SMALL), top=True)
    assert load_tensors(trunk, tensors, "f").startswith("100 of 100 tensors")
    assert all(torch.equal(value, source[key]) for key, value in trunk.state_dict().items())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def test_a_pickle_with_code_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"conv1.weight": torch.zeros(2)}, "more": Evil()}, "evil.pth")
    Path("raw.pth").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pth", "raw.pth"):
        with pytest.raises(ArtefactError) as caught:
            read_tensors(Path(name))
        assert str(caught.value).startswith(f"{name}: ") and "\n" not in str(caught.value)
    assert not Path("executed").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, suffix: str, content: bytes):
    file = tmp_path / f"w{suffix}"
    with pytest.raises(ArtefactError, match="there is no such file of weights"):
        read_tensors(file)
    file.write_bytes(content)
    with pytest.raises(ArtefactError, match=str(file)):
        read_tensors(file)


def test_tensors_are_found_in_nested_dicts(tmp_path: Path):
    tensor = torch.arange(3.0)
    torch.save({"epoch": 3, "state_dict": {"a.b": tensor, "n": 1}}, tmp_path / "moco.pth")
    torch.save({"teacher": {"a": {"b": tensor}}, "optimizer": {"lr": 0.1}}, tmp_path / "dino.pth")
    torch.save({"lr": 0.1}, tmp_path / "none.pth")
    assert read_tensors(tmp_path / "moco.pth").keys() == {"a.b"}
    assert torch.equal(read_tensors(tmp_path / "dino.pth")["teacher.a.b"], tensor)
    with pytest.raises(ArtefactError, match="holds no tensors"):
        read_tensors(tmp_path / "none.pth")
