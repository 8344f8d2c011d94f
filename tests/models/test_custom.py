"""Networks of one's own, by their import path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ssltransfer.config.backbones import Custom
from ssltransfer.config.base import ConfigError
from ssltransfer.config.entities import Pretext
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.flops import flops
from ssltransfer.models.weights import read_model
from ssltransfer.stages import pretext

CODE = """
import torch
from torch import nn

def small(width=8, relu=True):
    return nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

class Tokens(nn.Module):
    num_prefix_tokens = 1

    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 8, 16, 16)
        self.patch_embed.patch_size = 16
        self.blocks = nn.Identity()

    def forward(self, x):
        patches = self.patch_embed(x).flatten(2).transpose(1, 2)
        return self.blocks(torch.cat([patches.mean(1, keepdim=True), patches], 1))[:, 0]

def a_map():
    return nn.Conv2d(3, 8, 3)

def nothing():
    return 3
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The module `own_nets` in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_nets.py").write_text(CODE)
    yield tmp_path / "own_nets.py"
    sys.modules.pop("own_nets", None)


def options(model: str = "own_nets:small", **more: Any) -> Custom:
    return Custom.model_validate({"model": model, "img_size": 32, **more})


def test_custom_network_is_built_with_its_options(nets: Path) -> None:
    one, same, other = (build_backbone(options(options={"width": 16}), include_top=False, seed=s) for s in (0, 0, 1))
    assert one.shapes() == {"pool": (16,)}
    tensors = [net.state_dict()["0.weight"] for net in (one, same, other)]
    assert torch.equal(tensors[0], tensors[1]) and not torch.equal(tensors[0], tensors[2])
    named = build_backbone(options(return_nodes=("1",)), include_top=False)
    assert named.shapes() == {"1": (8, 15, 15), "pool": (8,)}
    assert flops(options()) == 2 * 15 * 15 * 8 * 27
    assert options(options={"width": 16}).slug != options().slug


def test_custom_network_trains_and_is_read_again(nets: Path, objects_path: Path, tmp_path: Path) -> None:
    backbone = {"name": "custom", "model": "own_nets:small", "img_size": 32, "options": {"relu": False}}
    spec = {"task": "rotation", "backbone": backbone, "data": "d", "schedule": {"steps": 2, "batch_size": 4}}
    output = tmp_path / "p" / "manifest.json"
    pretext.run(Pretext.model_validate(spec), data=objects_path, output=output, threads=1)
    assert read_model(output).backbone.options == options(options={"relu": False})


def test_changed_file_is_another_backbone(nets: Path) -> None:
    before = options()
    nets.write_text(CODE + "\n# edited")
    assert options() != before
    with pytest.raises(ConfigError, match="has changed since the configuration was read"):
        build_backbone(before, include_top=False)


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ("no_nets:small", {}, "no module 'no_nets'; install it, or put no_nets.py into the working directory"),
        ("own_nets:smal", {}, "no callable 'smal'; did you mean 'small'"),
        ("own_nets:small", {"options": {"widht": 1}}, "cannot be called with these `options` .*widht"),
        ("own_nets:nothing", {}, "returns a int, not a torch module"),
    ],
)
def test_wrong_custom_networks_are_refused(nets: Path, model: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_backbone(options(model, **more), include_top=False)


def test_custom_network_must_return_vectors(nets: Path) -> None:
    with pytest.raises(LayerError, match=r"the network returns \(1, 8, 30, 30\); return features of shape \(B, C\)"):
        build_backbone(options("own_nets:a_map"), include_top=False).shapes()


@pytest.mark.parametrize("model", ["own_nets", "own nets:small", "own_nets:small()"])
def test_import_paths_have_a_colon(model: str) -> None:
    with pytest.raises(ValidationError, match="should match pattern"):
        options(model)


def test_tokens_of_a_custom_network_are_maps(nets: Path) -> None:
    """Named as in timm: `num_prefix_tokens`, and `patch_size` of `patch_embed`."""
    backbone = build_backbone(
        options("own_nets:Tokens", return_nodes=("patch_embed", "blocks", "blocks.cls")), include_top=False
    )
    found = backbone(torch.randn(2, 3, 32, 32), backbone.layers)
    assert torch.equal(found["blocks"], found["patch_embed"])
    assert torch.allclose(found["blocks.cls"], found["patch_embed"].mean((2, 3)), atol=1e-6)


def test_tokens_without_a_grid_are_refused(nets: Path) -> None:
    nets.write_text(CODE.replace("self.patch_embed.patch_size = 16", ""))
    backbone = build_backbone(options("own_nets:Tokens", return_nodes=("blocks",)), include_top=False)
    with pytest.raises(LayerError, match="blocks gives a tensor of 3 axes, neither a map nor a vector"):
        backbone(torch.randn(2, 3, 32, 32), ["blocks"])
