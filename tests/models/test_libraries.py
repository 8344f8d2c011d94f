"""Networks of torchvision and timm as backbones: the libraries' own values, names, and refusals."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from pydantic import ValidationError
from torch import Tensor, nn

from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.backbones import Timm, Torchvision
from ssltransfer.extras import MissingExtraError
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.fcn import Fcn
from ssltransfer.models.state_dicts import load_tensors
from ssltransfer.models.weights import read_model, write_model
from ssltransfer.planning.networks import flops, parameters
from tests.helpers.networks import noise


def classifier_input(network: nn.Module, classifier: str, x: Tensor) -> Tensor:
    """What its classifier is given, caught on the way."""
    caught: list[Tensor] = []
    network.get_submodule(classifier).register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    with torch.no_grad():
        network.eval()(x)
    return caught[0]


@pytest.mark.parametrize(
    ("model", "classifier", "endpoints", "size"),
    [
        ("resnet18", "fc", ("layer2", "layer4.1.conv1"), 64),
        ("mobilenet_v3_small", "classifier.3", ("features.4",), 64),
        ("shufflenet_v2_x0_5", "fc", ("stage3",), 64),
        ("mnasnet0_5", "classifier.1", ("layers.8",), 64),
        ("squeezenet1_1", "", (), 64),
        ("regnet_y_400mf", "fc", ("trunk_output.block2",), 64),  # language: allow (a name of torchvision)
        ("efficientnet_b0", "classifier.1", ("features.3",), 64),
        ("densenet121", "classifier", ("features.denseblock1",), 64),
        ("googlenet", "fc", ("inception3a",), 64),
    ],
)
def test_layers_match_torchvision(model: str, classifier: str, endpoints: tuple[str, ...], size: int) -> None:
    options = Torchvision(model=model, return_nodes=endpoints, img_size=size)
    if not classifier:
        with pytest.raises(LayerError, match="does not end with a linear layer"):
            build_backbone(options, include_top=True)
        return
    more: dict[str, Any] = {"aux_logits": False, "init_weights": True} if model == "googlenet" else {}
    torch.manual_seed(4)
    theirs = torchvision.models.get_model(model, weights=None, **more)
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.7, 1.3)
    backbone = build_backbone(options, include_top=True).eval()
    said = load_tensors(backbone, theirs.state_dict(), f"{model}.pth")
    assert said.endswith("prefix '', 2 left in the file")
    x = noise(2, 3, size, size)
    wanted = {"pool": classifier_input(theirs, classifier, x)}
    for path in endpoints:
        caught: list[Tensor] = []
        hook = theirs.get_submodule(path).register_forward_hook(lambda _, __, out, to=caught: to.append(out.clone()))
        with torch.no_grad():
            theirs(x)
        hook.remove()
        wanted[path] = caught[0]
    with torch.no_grad():
        found = backbone(x, backbone.layers)
        assert torch.equal(backbone(x)["pool"], wanted["pool"])
    assert list(found) == [*endpoints, "pool"] == list(backbone.layers)
    for layer, value in wanted.items():
        assert torch.equal(found[layer], value), layer
        assert backbone.shapes()[layer] == tuple(value.shape[1:])


def test_library_initializes_the_weights() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        theirs = torchvision.models.get_model("resnet18", weights=None).state_dict()
    before = torch.random.get_rng_state()
    ours = build_backbone(Torchvision(model="resnet18"), include_top=True, seed=7).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    assert list(ours) == [name for name in theirs if not name.startswith("fc.")]
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_forward_stops_after_the_last_requested_module() -> None:
    backbone = build_backbone(
        Torchvision(model="resnet18", return_nodes=("layer1", "layer3"), img_size=64), include_top=True
    ).eval()
    ran: list[str] = []
    for name, part in backbone.named_modules():
        if not list(part.children()):
            part.register_forward_hook(lambda _, __, ___, name=name: ran.append(name))
    counts = []
    for layer in backbone.layers:
        ran.clear()
        assert list(backbone(noise(1, 3, 64, 64), [layer])) == [layer]
        counts.append(list(ran))
    for before, after in pairwise(counts):
        assert len(before) < len(after) and after[: len(before)] == before
    assert any(name.startswith("network.layer1") for name in counts[0]) and counts[0][-1].startswith("network.layer1")


def test_features_are_not_changed_by_inplace_modules() -> None:
    backbone = build_backbone(
        Torchvision(model="resnet18", return_nodes=("bn1",), img_size=64), include_top=True
    ).eval()
    found = backbone(noise(1, 3, 64, 64), ["bn1", "pool"])
    assert (found["bn1"] < 0).any()  # ReLU follows


def test_feature_hooks_keep_first_call_of_module() -> None:
    path = "layer1.0.relu"
    backbone = build_backbone(
        Torchvision(model="resnet18", return_nodes=(path, "layer1.0"), img_size=64), include_top=True
    ).eval()
    x = noise(1, 3, 64, 64)
    alone, among = backbone(x, [path])[path], backbone(x, [path, "layer1.0", "pool"])
    assert torch.equal(alone, among[path]) and not torch.equal(alone, among["layer1.0"])


def test_swin_maps_are_channels_first() -> None:
    backbone = build_backbone(
        Torchvision(model="swin_t", return_nodes=("features.1",), img_size=64), include_top=True
    ).eval()
    shapes = backbone.shapes()
    assert shapes == {"features.1": (96, 16, 16), "pool": (768,)}


def test_gradients_reach_the_weights() -> None:
    backbone = build_backbone(
        Torchvision(model="shufflenet_v2_x0_5", return_nodes=("stage2",), img_size=64), include_top=True
    ).train()
    backbone(noise(2, 3, 64, 64), ["stage2"])["stage2"].square().sum().backward()
    learned = {name.split(".")[1] for name, p in backbone.named_parameters() if p.grad is not None}
    assert learned == {"conv1", "stage2"}


def test_write_and_read_model(tmp_path: Path) -> None:
    backbone = build_backbone(
        Torchvision(model="shufflenet_v2_x0_5", return_nodes=("stage2",), img_size=64), include_top=True
    )
    backbone.train()(noise(8, 3, 64, 64))
    with WorkDir("pretext", tmp_path / "m" / "manifest.json", "{}", {}) as work:
        work.finish(write_model(tmp_path / "m", backbone, "imagenet", {}))
    model = read_model(work.output)
    assert model.backbone.options == backbone.options and model.backbone.layers == ("stage2", "pool")
    x = noise(1, 3, 64, 64)
    with torch.no_grad():
        found, wanted = model.backbone(x, ["stage2", "pool"]), backbone.eval()(x, ["stage2", "pool"])
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_tensor_names_inside_a_task_are_the_librarys() -> None:
    options = Torchvision(model="resnet18", img_size=64)
    task, other = (
        nn.ModuleDict({"backbone": build_backbone(options, include_top=True, seed=seed), "head": nn.Linear(3, 2)})
        for seed in (0, 3)
    )
    state = task.state_dict()
    assert "backbone.layer1.0.conv1.weight" in state and not any("network" in name for name in state)
    other.load_state_dict(state)
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    assert isinstance(build_backbone(Torchvision(model="resnet18").for_tiles(None), include_top=False), nn.Module)


def test_flops_and_parameters_on_the_meta_device() -> None:
    options = Torchvision(model="regnet_y_400mf", img_size=64)
    assert parameters(options, True) > 3.9e6 and flops(options) > 1e6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "resnet19"}, "torchvision has no classification network 'resnet19'; did you mean 'resnet1"),
        ({"model": "fcn_resnet50"}, "torchvision has no classification network 'fcn_resnet50'"),
        ({"model": "resnet18", "return_nodes": ("layer5",)}, "resnet18 has no module 'layer5'; did you mean 'layer"),
    ],
)
def test_unknown_networks_and_modules_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(LayerError, match=said):
        build_backbone(Torchvision(**options), include_top=True)


def test_unsupported_layers_are_refused() -> None:
    backbone = build_backbone(
        Torchvision(model="vit_b_32", return_nodes=("encoder.ln",), img_size=64), include_top=True
    ).eval()
    with pytest.raises(LayerError, match=r"encoder\.ln gives a tensor of 3 axes, neither a map nor a vector"):
        backbone(noise(1, 3, 64, 64), ["encoder.ln"])
    assert backbone(noise(1, 3, 64, 64))["pool"].shape == (1, 768)
    with pytest.raises(LayerError, match=r"torchvision: no layer 'head'; it has encoder\.ln, pool"):
        backbone(noise(1, 3, 64, 64), ["head"])
    with pytest.raises(LayerError, match="cannot be computed from the layer before"):
        backbone.forward_layer("pool", noise(1, 3))
    with pytest.raises(LayerError, match="the positions of its cells in the image are unknown"):
        Fcn(backbone, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "hf_hub:someone/net"},
        {"model": "resnet18", "width_mult": 2},
        {"model": "resnet18", "stem_stride": 1},
        {"model": "resnet18", "return_nodes": ["pool"]},
        {"model": "resnet18", "return_nodes": ["layer1", "layer1"]},
        {},
    ],
)
def test_invalid_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Torchvision(**wrong)


def test_missing_timm_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"needs timm, which is not installed; run: pip install .*\[timm\]"):
        build_backbone(Timm(model="resnet18"), include_top=True)


@pytest.mark.parametrize(
    ("model", "endpoints", "size", "maps"),
    [
        ("resnet18", ("layer3",), 64, {"layer3": (256, 4, 4)}),
        ("convnext_atto", ("stages.1",), 64, {"stages.1": (80, 8, 8)}),
        ("swin_tiny_patch4_window7_224", ("layers.1",), 64, {"layers.1": (192, 8, 8)}),
        ("vit_tiny_patch16_224", (), 64, {}),
    ],
)
def test_layers_match_timm(model: str, endpoints: tuple[str, ...], size: int, maps: dict[str, tuple[int, ...]]) -> None:
    more: dict[str, Any] = {"img_size": size} if "224" in model else {}
    torch.manual_seed(2)
    theirs: Any = timm.create_model(model, pretrained=False, **more).eval()
    backbone = build_backbone(Timm(model=model, return_nodes=endpoints, img_size=size), include_top=True).eval()
    load_tensors(backbone, theirs.state_dict(), "timm.pth")
    x = noise(2, 3, size, size)
    with torch.no_grad():
        wanted = theirs.forward_head(theirs.forward_features(x), pre_logits=True)
        assert torch.equal(backbone(x)["pool"], wanted)
        for name, shape in maps.items():
            assert backbone(x, [name])[name].shape[1:] == shape
    with torch.device("meta"):
        assert build_backbone(backbone.options, include_top=True).layers == (*endpoints, "pool")


def test_unknown_timm_network_is_refused() -> None:
    with pytest.raises(LayerError, match="timm has no network 'resnet17x'; did you mean 'resnet"):
        build_backbone(Timm(model="resnet17x"), include_top=True)
