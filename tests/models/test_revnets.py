"""RevNet-50: against the units as they were published, ordinary backpropagation, and a count of what is kept."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.backbones import RevNet50
from ssltransfer.models.backbone import Backbone, initialize
from ssltransfer.models.build import build_backbone
from ssltransfer.models.revnets import Reversible, branch
from ssltransfer.models.weights import read_model, write_model
from ssltransfer.training.sync_bn import CpuSyncBatchNorm, convert_sync_bn
from tests.helpers.networks import noise, shaken

SMALL = RevNet50(width_mult=0.125, img_size=64, norm_momentum=0.1)


def meta(**options: Any) -> Backbone:
    with torch.device("meta"):
        return build_backbone(RevNet50(**options), include_top=True)


def row(units: int, channels: int = 32, *, grad_checkpointing: bool) -> Reversible:
    torch.manual_seed(0)
    block = Reversible([branch(channels // 2) for _ in range(units)], grad_checkpointing=grad_checkpointing)
    initialize(block)
    return shaken(block)


def parameters(width: int) -> int:
    """Parameters of the published network whose stem has 64 `width` channels before the factor of four."""
    total = 3 * 49 * 256 * width + 2 * 2048 * width
    for units, channels in ((3, 256), (4, 512), (6, 1024), (3, 2048)):
        stream, inner = channels * width // 2, channels * width // 8
        total += units * (2 * stream + stream * inner + 2 * inner + 9 * inner**2 + 2 * inner + inner * stream)
    return total


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_parameters_and_pre_logits_at_the_published_widths(width: int) -> None:
    backbone = meta(width_mult=width)
    assert sum(p.numel() for p in backbone.parameters()) == parameters(width)
    assert backbone.shapes()["pool"] == (512 * 4 * width,)
    if width == 1:
        assert parameters(1) == 5_408_640


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        (64, (32, 16, 8, 4, 2)),
        (96, (48, 24, 12, 6, 3)),
        (224, (112, 56, 28, 14, 7)),
        (227, (114, 57, 29, 15, 8)),
        (256, (128, 64, 32, 16, 8)),
    ],
)
def test_map_sides(size: int, sides: tuple[int, ...]) -> None:
    shapes = meta(width_mult=0.25, img_size=size).shapes()
    assert tuple(shapes[name][-1] for name in ("conv1", "block1", "block2", "block3", "block4")) == sides
    assert [shapes[name][0] for name in ("conv1", "block1", "block2", "block3", "block4")] == [64, 64, 128, 256, 512]


def test_patch_strides_keep_the_tensors() -> None:
    tiles = build_backbone(SMALL.for_tiles(None), include_top=False)
    shapes = tiles.shapes(64)
    assert [shapes[name][-1] for name in ("conv1", "block1", "block2", "block3", "block4")] == [64, 32, 16, 8, 8]
    build_backbone(SMALL, include_top=True).load_state_dict(tiles.state_dict())
    asked = build_backbone(SMALL.model_copy(update={"stem_stride": 1, "block4_stride": 1}), include_top=True)
    assert asked.shapes() == shapes


def textbook(backbone: Backbone, x: Tensor) -> dict[str, Tensor]:
    """The released network, in the order of its lines, with PyTorch's layout."""

    def norm(x: Tensor, module: nn.Module) -> Tensor:
        assert isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
        assert module.running_var is not None
        scale = module.weight / torch.sqrt(module.running_var + 1e-3)
        return x * scale.view(-1, 1, 1) + (module.bias - module.running_mean * scale).view(-1, 1, 1)

    weights = backbone.state_dict()
    found = {"conv1": F.conv2d(F.pad(x, (3, 3, 3, 3)), weights["conv1.weight"], stride=2)}
    x = F.max_pool2d(F.pad(found["conv1"], (1, 1, 1, 1)), 3, 2)
    for number in (1, 2, 3, 4):
        if number > 1:
            x = F.avg_pool2d(x, 2)
            x = torch.cat([torch.zeros_like(x[:, ::2]), x, torch.zeros_like(x[:, ::2])], dim=1)
        units: Any = backbone.get_submodule(f"block{number}")
        for unit in units:
            x1, x2 = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
            y = F.conv2d(norm(x2, unit[0]).relu(), unit[2].weight)
            y = F.conv2d(norm(y, unit[3]).relu(), unit[5].weight, padding=1)
            y = F.conv2d(norm(y, unit[6]).relu(), unit[8].weight)
            x = torch.cat([x2, x1 + y], dim=1)
        found[f"block{number}"] = x
    x = norm(x, backbone.get_submodule("norm"))
    found["block4"] = x.relu() if backbone.options.last_relu else x  # type: ignore[attr-defined]
    found["pool"] = found["block4"].mean((2, 3))
    if "representation.weight" in weights:
        found["representation"] = found["pool"] @ weights["representation.weight"].T + weights["representation.bias"]
    return found


@pytest.mark.parametrize(
    "more", [{}, {"last_relu": False}, {"embed_dim": 5, "width_mult": 0.3, "grad_checkpointing": True}]
)
def test_matches_the_paper(more: dict[str, Any]) -> None:
    backbone = shaken(build_backbone(SMALL.model_copy(update=more), include_top=True).double().eval())
    x = noise(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        found, wanted = backbone(x, backbone.layers), textbook(backbone, x)
    assert found.keys() == wanted.keys()
    for layer, value in wanted.items():
        torch.testing.assert_close(found[layer], value, rtol=1e-9, atol=1e-9, msg=layer)
    assert bool((found["block4"] < 0).any()) == (more.get("last_relu") is False)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_reversible_inverse(number: int) -> None:
    backbone = shaken(build_backbone(RevNet50(width_mult=0.5, img_size=64), include_top=True).eval())
    block = backbone.get_submodule(f"block{number}")
    assert isinstance(block, Reversible)
    x = noise(2, 64 * 2**number, 8, 8)
    with torch.no_grad():
        y = block(x)
        assert float((y - x).abs().max()) > 0.1
        assert float((block.inverse(y) - x).abs().max()) < 1e-4


def gradients(backbone: nn.Module, x: Tensor, last: str) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    found = backbone(x, [last])[last]
    (found * noise(*found.shape, seed=9).to(found)).sum().backward()
    assert x.grad is not None
    return {"": x.grad} | {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("training", [True, False])
def test_grad_checkpointing_gives_equal_gradients(training: bool) -> None:
    options = SMALL.model_copy(update={"embed_dim": 7})
    plain = shaken(build_backbone(options, include_top=True, seed=3).double()).train(training)
    again = (
        build_backbone(options.model_copy(update={"grad_checkpointing": True}), include_top=True)
        .double()
        .train(training)
    )
    again.load_state_dict(plain.state_dict())
    x = noise(3, 3, 64, 64, dtype=torch.float64)
    wanted, found = (gradients(backbone, x, "representation") for backbone in (plain, again))
    assert found.keys() == wanted.keys() and len(found) == 1 + len(list(plain.parameters()))
    for name, value in wanted.items():
        scale = float(value.abs().max())
        assert float((found[name] - value).abs().max()) <= 1e-9 * scale + 1e-12, name
    # Running statistics, and their counters, moved once and alike.
    for name, value in plain.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    counters = [int(v) for name, v in again.state_dict().items() if name.endswith("num_batches_tracked")]
    assert set(counters) == {int(training)}


def test_frozen_parameters_get_no_gradient() -> None:
    block = row(3, grad_checkpointing=True)
    block[1].requires_grad_(False)
    block(noise(2, 32, 5, 5)).sum().backward()
    assert all((p.grad is None) == name.startswith("1.") for name, p in block.named_parameters())
    block.requires_grad_(False)
    x = noise(2, 32, 5, 5).requires_grad_()
    block(x).square().sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    with torch.no_grad():
        assert torch.equal(block.eval()(x), block.run(x))


@pytest.mark.parametrize("inside", [True, False])
def test_streams_are_float32_under_autocast(inside: bool) -> None:
    plain, again = row(6, grad_checkpointing=False), row(6, grad_checkpointing=True)
    x = noise(4, 32, 8, 8)
    found = []
    for block in (plain, again):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.no_grad():
                copy.deepcopy(block)(x)
            y = block(x.bfloat16())
            assert y.dtype == torch.float32
            loss = (y * noise(*y.shape, seed=2)).sum()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        found.append({name: p.grad for name, p in block.named_parameters()})
    for name, value in found[0].items():
        other = found[1][name]
        assert value is not None and other is not None
        # bfloat16 has eight bits; a stream that is a rounding off may fall on the other side of some of them.
        assert float((other - value).norm() / value.norm()) < 0.02, name
    # With the streams in bfloat16 what comes back would be off in the first digits.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        start = noise(4, 32, 8, 8, seed=4)
        assert float((again.eval().inverse(again(start).detach()) - start).abs().max()) < 1e-4


def kept(block: Reversible) -> int:
    """Bytes that autograd holds between the forward and the backward pass, each storage once, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in block.parameters()}
    held: dict[int, Tensor] = {}

    def pack(value: Tensor) -> Tensor:
        held[value.untyped_storage().data_ptr()] = value
        return value

    x = noise(4, 32, 8, 8).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        y = block(x)
    y.sum().backward()
    return sum(v.untyped_storage().nbytes() for at, v in held.items() if at not in weights)


def test_stored_activations_do_not_grow_with_depth() -> None:
    end = 4 * 32 * 8 * 8 * 4
    assert [kept(row(units, grad_checkpointing=True)) for units in (1, 4, 16)] == [end, end, end]
    ordinary = [kept(row(units, grad_checkpointing=False)) for units in (1, 4, 16)]
    assert ordinary[2] > 3 * ordinary[1] > 6 * ordinary[0] > 6 * end


def test_backward_memory_does_not_grow_with_depth() -> None:
    """The most that autograd holds at any time, forward and backward, without the weights."""

    def most(units: int) -> int:
        block = row(units, grad_checkpointing=True)
        weights = {p.untyped_storage().data_ptr() for p in block.parameters()}
        now, peak = 0, 0

        class Held:
            def __init__(self, value: Tensor):
                nonlocal now, peak
                self.value = value
                self.bytes = 0 if value.untyped_storage().data_ptr() in weights else value.nbytes
                now += self.bytes
                peak = max(peak, now)

            def __del__(self) -> None:
                nonlocal now
                now -= self.bytes

        x = noise(4, 32, 8, 8).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.value):
            y = block(x)
            y.sum().backward()
        return peak

    assert most(2) == most(16) > 0


def test_sync_bn_updates_statistics_once_per_batch(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        alone, common = row(3, grad_checkpointing=True), row(3, grad_checkpointing=True)
        convert_sync_bn(common)
        assert any(isinstance(part, CpuSyncBatchNorm) for part in common.modules())
        x = noise(4, 32, 6, 6)
        for block in (alone, common):
            block(x).square().sum().backward()
        for (name, value), other in zip(alone.state_dict().items(), common.state_dict().values(), strict=True):
            torch.testing.assert_close(other, value, rtol=1e-4, atol=1e-5, msg=name)
        for (name, one), two in zip(alone.named_parameters(), common.parameters(), strict=True):
            assert one.grad is not None
            torch.testing.assert_close(two.grad, one.grad, rtol=1e-3, atol=1e-3 * float(one.grad.abs().max()), msg=name)
    finally:
        dist.destroy_process_group()


def test_random_features_are_of_order_one() -> None:
    backbone = build_backbone(SMALL, include_top=True).eval()
    with torch.no_grad():
        for layer, value in backbone(noise(2, 3, 64, 64), backbone.layers).items():
            assert layer == "pool" or 0.2 < float(value.std()) < 10, layer


def test_revnet_all_parameters_get_gradients() -> None:
    backbone = build_backbone(
        SMALL.model_copy(update={"grad_checkpointing": True, "embed_dim": 6}), include_top=True
    ).train()
    backbone(noise(4, 3, 64, 64))["representation"].square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_trains_to_separate_images() -> None:
    backbone = build_backbone(
        SMALL.model_copy(update={"grad_checkpointing": True, "embed_dim": 4}), include_top=True, seed=1
    ).train()
    x, target = noise(8, 3, 64, 64), torch.arange(8) % 4
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(backbone(x)["representation"], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 < 1 < losses[0]


def test_write_and_read_model(tmp_path: Path) -> None:
    backbone = shaken(
        build_backbone(SMALL.model_copy(update={"grad_checkpointing": True, "embed_dim": 12}), include_top=True)
    )
    with WorkDir("pretext", tmp_path / "m" / "manifest.json", "{}", {}) as work:
        work.finish(write_model(tmp_path / "m", backbone, "half", {}))
    model, backbone = read_model(work.output), backbone.to(memory_format=torch.channels_last)
    assert model.backbone.options == backbone.options and model.backbone.layers == backbone.layers
    assert model.backbone.layers[-2:] == ("pool", "representation")
    x = noise(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.backbone(x)["representation"], backbone.eval()(x)["representation"])
