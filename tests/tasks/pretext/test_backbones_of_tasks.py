"""Tasks that take any backbone take these: their heads read the right layer, all that is exported learns."""

from __future__ import annotations

import math

import pytest
import torch

from ssltransfer.config.backbones import (
    AlexNetBN,
    AlexNetDeepCluster,
    BackboneOptions,
    MobileNetV2,
    ResNet50V2,
    RevNet50,
    Timm,
    Torchvision,
    Vgg19BN,
)
from ssltransfer.config.tasks import Jigsaw, Rotation, Tiles
from ssltransfer.data.loader import Batch
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.tasks.pretext.puzzle import ContextFreeNetwork
from ssltransfer.tasks.pretext.rotation import RotationTask

TILE = 48
BACKBONES: list[tuple[BackboneOptions, str, int]] = [
    # Backbone, what a linear head reads of it, and what pool5 gives for a tile.
    (AlexNetBN(width_mult=0.125, img_size=TILE), "", 32 * 4),
    (AlexNetDeepCluster(width_mult=0.125, img_size=TILE), "", 32 * 4),
    (Vgg19BN(width_mult=0.06, img_size=TILE), "fc7", 248),
    (ResNet50V2(width_mult=0.125, img_size=TILE, last_relu=False), "pool", 256 * 36),
    (ResNet50V2(width_mult=0.125, img_size=TILE, embed_dim=24), "representation", 24),
    (RevNet50(width_mult=0.125, img_size=TILE, grad_checkpointing=True), "pool", 256 * 36),
    (RevNet50(width_mult=0.125, img_size=TILE, embed_dim=24, grad_checkpointing=True), "representation", 24),
    (MobileNetV2(width_mult=0.25, img_size=TILE), "pool", 1280 * 9),
    (Torchvision(model="shufflenet_v2_x0_5", return_nodes=("conv5",), img_size=64), "pool", 1024 * 4),
]
each = pytest.mark.parametrize(("options", "vector", "features"), BACKBONES, ids=lambda v: getattr(v, "slug", None))


def images(count: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@each
def test_rotation_head_fits_every_backbone(options: BackboneOptions, vector: str, features: int) -> None:
    task = RotationTask(Rotation(hidden_dim=16, augment="crop"), options, 0)
    first = next(part for part in task.head.modules() if isinstance(part, torch.nn.Linear))
    if vector:
        assert len(task.head) == 1 and first.in_features == task.backbone.shapes()[vector][0]
    batch = Batch(images(4, options.short_side), torch.arange(4), torch.zeros(4, dtype=torch.int64))
    values = task.train()(batch, batch.rng(0))
    assert abs(float(values["loss"].detach()) - math.log(4)) < 0.5
    values["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())
    # What is exported: the same tensors under the backbone's own strides.
    build_backbone(options, include_top=False).load_state_dict(task.backbone.state_dict())


@each
def test_puzzle_heads_fit_every_backbone(options: BackboneOptions, vector: str, features: int) -> None:
    cut = Tiles(crop=3 * options.img_size, tile=options.img_size, channel_shift=0)
    network = ContextFreeNetwork(
        options, Jigsaw(tiles=cut, permutations=6, hidden_dim=16, dropout=0.0, bn=True), seed=0
    )
    assert network.pool5.features == features
    tiles = torch.randn(2, 9, 3, options.img_size, options.img_size, generator=torch.Generator().manual_seed(1))
    logits = network.train()(tiles)
    assert logits.shape == (2, 6)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    build_backbone(options, include_top=False).load_state_dict(network.backbone.state_dict())


def test_last_map_names_the_size_that_fc6_needs() -> None:
    with pytest.raises(
        LayerError, match=r"Tiles of 48 pixels are too small .*or its fc6 expects another size.*size: 48"
    ):
        ContextFreeNetwork(
            Vgg19BN(width_mult=0.06, img_size=96),
            Jigsaw(tiles=Tiles(tile=48), permutations=6, hidden_dim=16),
            seed=0,
        )


def test_rotation_trains_a_timm_backbone() -> None:
    task = RotationTask(Rotation(hidden_dim=16, augment="crop"), Timm(model="convnext_atto", img_size=64), 0)
    batch = Batch(images(2, 73), torch.arange(2), torch.zeros(2, dtype=torch.int64))
    values = task.train()(batch, batch.rng(0))
    values["loss"].backward()
    assert all(p.grad is not None for p in task.parameters())
