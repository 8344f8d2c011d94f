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
    model, backbone = read_model(work.output), backbone.to(memory_format=torch.channels_last)
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


ATTENTION = "encoder.layers.encoder_layer_0.self_attention"


def test_unsupported_layers_are_refused() -> None:
    backbone = build_backbone(
        Torchvision(model="vit_b_32", return_nodes=(ATTENTION, "encoder.ln.prefix1", "conv_proj.mean"), img_size=64),
        include_top=True,
    ).eval()
    with pytest.raises(LayerError, match=r"self_attention gives a tuple, neither a map nor a vector"):
        backbone(noise(1, 3, 64, 64), [ATTENTION])
    with pytest.raises(LayerError, match=r"encoder\.ln\.prefix1 is one of 1 prefix tokens of this module"):
        backbone(noise(1, 3, 64, 64), ["encoder.ln.prefix1"])
    assert backbone(noise(1, 3, 64, 64))["pool"].shape == (1, 768)
    with pytest.raises(LayerError, match=r"torchvision: no layer 'head'; it has encoder\.layers.*, pool"):
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


@pytest.mark.parametrize(
    ("model", "size", "prefixes"),
    [
        ("vit_tiny_patch16_224", 48, 1),
        ("deit_tiny_distilled_patch16_224", 48, 2),
        ("vit_small_patch14_reg4_dinov2", 42, 5),
        ("vit_small_patch16_dinov3", 48, 5),
        ("cait_xxs24_224", 48, 0),
        ("xcit_nano_12_p16_224", 48, 0),
    ],
)
def test_tokens_match_timm_as_maps(model: str, size: int, prefixes: int) -> None:
    """Maps, prefix tokens and means of a block, as timm's own intermediates."""
    last = "blocks.11"
    names = [last, f"{last}.mean", *(f"{last}.{'cls' if i == 0 else f'prefix{i}'}" for i in range(prefixes))]
    options = Timm(model=model, return_nodes=tuple(names), img_size=size)
    assert options.spatial_layers == (last,)
    backbone: Any = build_backbone(options, include_top=True, seed=3).eval()
    x = noise(2, 3, size, size)
    with torch.no_grad():
        found = backbone(x, names)
        more: dict[str, Any] = {"return_prefix_tokens": True} if prefixes else {}
        (theirs,) = backbone.network.forward_intermediates(x, indices=[11], intermediates_only=True, **more)
    wanted, tokens = theirs if prefixes else (theirs, torch.empty(0))
    assert wanted.shape[2:] == (3, 3) and torch.equal(found[last], wanted)
    assert torch.allclose(found[f"{last}.mean"], wanted.mean((2, 3)))
    for number in range(prefixes):
        assert torch.equal(found[names[2 + number]], tokens[:, number])
    assert backbone.shapes()[last] == tuple(wanted.shape[1:])


def test_tokens_are_in_the_order_of_the_image() -> None:
    """A change of the patch in row 1, column 2 changes that token of the patch embedding and no other one."""
    options = Timm(model="vit_tiny_patch16_224", return_nodes=("patch_embed",), img_size=64)
    backbone = build_backbone(options, include_top=True).eval()
    x = noise(1, 3, 64, 64)
    changed = x.clone()
    changed[:, :, 16:32, 32:48] += 1
    with torch.no_grad():
        differs = (backbone(x, ["patch_embed"])["patch_embed"] != backbone(changed, ["patch_embed"])["patch_embed"])[0]
    assert differs.any(0).nonzero().tolist() == [[1, 2]]


def test_tokens_of_images_that_are_not_square() -> None:
    options = Timm(model="vit_small_patch16_dinov3", return_nodes=("blocks.0", "norm.cls"), img_size=64)
    assert build_backbone(options, include_top=True).shapes((32, 64)) == {
        "blocks.0": (384, 2, 4),
        "norm.cls": (384,),
        "pool": (384,),
    }


def test_class_token_of_the_norm_is_the_pooled_feature_of_dinov2() -> None:
    options = Timm(model="vit_small_patch14_dinov2", return_nodes=("norm.cls",), img_size=28)
    found = build_backbone(options, include_top=True).eval()(noise(2, 3, 28, 28), ["norm.cls", "pool"])
    assert torch.equal(found["norm.cls"], found["pool"])


def test_tokens_of_torchvision_match_its_own() -> None:
    path = "encoder.layers.encoder_layer_2"
    options = Torchvision(model="vit_b_32", return_nodes=(path, f"{path}.cls", "encoder.ln.mean"), img_size=96)
    backbone: Any = build_backbone(options, include_top=True).eval()
    caught: dict[str, Tensor] = {}
    for name in (path, "encoder.ln"):
        backbone.network.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: caught.__setitem__(name, out)
        )
    with torch.no_grad():
        found = backbone(noise(1, 3, 96, 96), backbone.layers)
    tokens = caught[path]
    assert tokens.shape == (1, 10, 768) and torch.equal(found[f"{path}.cls"], tokens[:, 0])
    for row, column in ((0, 0), (0, 2), (2, 1)):
        assert torch.equal(found[path][:, :, row, column], tokens[:, 1 + 3 * row + column])
    assert torch.allclose(found["encoder.ln.mean"], caught["encoder.ln"][:, 1:].mean(1), atol=1e-6)
    assert torch.equal(found["pool"], caught["encoder.ln"][:, 0])


def test_maps_of_sam_are_channels_first() -> None:
    options = Timm(model="samvit_base_patch16_224", return_nodes=("blocks.0",), img_size=64)
    backbone: Any = build_backbone(options, include_top=True).eval()
    x = noise(1, 3, 64, 64)
    with torch.no_grad():
        (wanted,) = backbone.network.forward_intermediates(x, indices=[0], intermediates_only=True)
        assert torch.equal(backbone(x, ["blocks.0"])["blocks.0"], wanted)
    assert backbone.shapes()["blocks.0"] == (768, 4, 4)


@pytest.mark.parametrize(
    "options",
    [
        Torchvision(model="shufflenet_v2_x0_5", img_size=64, embed_dim=12),
        Timm(model="vit_tiny_patch16_224", return_nodes=("blocks.3",), img_size=64, embed_dim=12),
    ],
    ids=lambda o: o.name,
)
def test_representation_is_linear_in_pool_and_keeps_the_library_names(options: Any, tmp_path: Path) -> None:
    backbone: Any = build_backbone(options, include_top=True, seed=3).eval()
    plain = build_backbone(options.model_copy(update={"embed_dim": None}), include_top=True, seed=3).eval()
    assert options.layers == (*options.return_nodes, "pool", "representation")
    x = noise(2, 3, 64, 64)
    with torch.no_grad():
        found = backbone(x, backbone.layers)
        assert torch.equal(found["pool"], plain(x)["pool"]) and found["representation"].shape == (2, 12)
        wanted = found["pool"] @ backbone.representation.weight.T + backbone.representation.bias
        torch.testing.assert_close(found["representation"], wanted)
        assert list(backbone(x)) == ["representation"]
        assert torch.equal(backbone(x)["representation"], found["representation"])
    names = list(backbone.state_dict())
    assert names == [*plain.state_dict(), "representation.weight", "representation.bias"]
    backbone.load_state_dict(build_backbone(options, include_top=True, seed=4).state_dict())
    with WorkDir("pretext", tmp_path / "m" / "manifest.json", "{}", {}) as work:
        work.finish(write_model(tmp_path / "m", backbone, "imagenet", {}))
    again = read_model(tmp_path / "m" / "manifest.json").backbone
    with torch.no_grad():
        assert torch.equal(
            again(x)["representation"], backbone.to(memory_format=torch.channels_last)(x)["representation"]
        )


def test_a_module_named_representation_is_refused_as_a_layer() -> None:
    with pytest.raises(ValidationError, match="`embed_dim` adds `representation`"):
        Torchvision(model="resnet18", return_nodes=("representation",))
