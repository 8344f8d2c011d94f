"""Files of other people's weights: every family's layout, made of random networks; and files that are none."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
import torchvision
import yaml
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import mobilenet_v2
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from ssltransfer.artifacts.files import ArtifactError, file_digest, read_json, write_json
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.cli import main
from ssltransfer.config.backbones import AlexNet, ResNet50
from ssltransfer.config.entities import Pretext
from ssltransfer.models.build import build_backbone
from ssltransfer.models.export import export
from ssltransfer.models.normalize import normalize
from ssltransfer.models.weights import read_model, write_model
from ssltransfer.stages import pretext
from ssltransfer.tasks.pretext.imported import check_weights
from tests.helpers.networks import shaken

DOCS = Path(__file__).resolve().parents[3] / "docs"
Network = Callable[[Tensor], Tensor]
Names = dict[str, Tensor]


class WideResNet(ResNet):
    """torchvision's, all of whose channels are multiplied: what converters of SimCLR build for x2 and x4."""

    def __init__(
        self, width: float = 0.25, block: type[BasicBlock | Bottleneck] = Bottleneck, depths: Any = (3, 4, 6, 3)
    ):
        super().__init__(block, list(depths))
        self.inplanes = stem = int(64 * width)
        self.conv1, self.bn1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False), nn.BatchNorm2d(stem)
        for number, depth in enumerate(depths):
            stage = self._make_layer(block, stem * 2**number, depth, stride=1 if number == 0 else 2)
            setattr(self, f"layer{number + 1}", stage)
        self.fc = nn.Linear(stem * 8 * block.expansion, 1000)


def resnet(**more: Any) -> tuple[Names, Network]:
    """State dict without fc, and what its classifier is given."""
    network = shaken(WideResNet(**more)).eval()
    assert isinstance(network, WideResNet)
    network.fc = nn.Identity()  # type: ignore[assignment]
    return network.state_dict(), network


def under(prefix: str, tensors: Names) -> Names:
    return {prefix + name: value for name, value in tensors.items()}


def linear(name: str, *shape: int) -> Names:
    return {f"{name}.weight": torch.randn(*shape), f"{name}.bias": torch.randn(shape[0])}


def optimizer() -> dict[str, Any]:
    return {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.03, "params": [0]}]}


@dataclass(frozen=True)
class File:
    """A published file, made small.

    Attributes:
        family: as the table of docs/compress.md calls it.
        content: the object saved in it.
        backbone: its options in a configuration.
        network: float (B, 3, S, S), normalized -> what the backbone's last layer must give.
        prefix: under which it must be found.
        task: options of the task beyond its file.
    """

    family: str
    content: Any
    backbone: dict[str, Any]
    network: Network
    prefix: str = ""
    task: dict[str, Any] | None = None


RESNET = {"name": "resnet50", "width_mult": 0.25, "img_size": 64}


def torchvision_resnet() -> File:
    tensors, network = resnet()
    return File("torchvision", tensors | linear("fc", 1000, 512), RESNET, network)


def torchvision_by_name() -> File:
    network = shaken(torchvision.models.shufflenet_v2_x0_5()).eval()
    content = {f"_orig_mod.{name}": value for name, value in network.state_dict().items()}  # of torch.compile
    network.fc = nn.Identity()
    backbone = {"name": "torchvision", "model": "shufflenet_v2_x0_5", "img_size": 64}
    return File("torchvision", content, backbone, network, "_orig_mod.")


def timm_resnet() -> File:
    network: Any = shaken(timm.create_model("resnet18", num_classes=10)).eval()
    content = {"epoch": 3, "arch": "resnet18", "args": argparse.Namespace(lr=0.1), "state_dict": network.state_dict()}
    backbone = {"name": "timm", "model": "resnet18", "img_size": 64}
    return File("timm", content, backbone, lambda x: network.forward_head(network.forward_features(x), pre_logits=True))


def vit(model: str = "vit_tiny_patch16_224", size: int = 64) -> tuple[Names, Network]:
    network = shaken(timm.create_model(model, num_classes=0, img_size=size)).eval()
    return network.state_dict(), network


VIT = {"name": "timm", "model": "vit_tiny_patch16_224", "img_size": 64}


def timm_vit() -> File:
    tensors, network = vit()
    return File("timm", tensors | linear("head", 1000, 192), VIT, network)


def moco_v1() -> File:
    (tensors, network), (other, _) = resnet(), resnet()
    content = under("module.encoder_q.", tensors | linear("fc", 128, 512))
    content |= under("module.encoder_k.", other | linear("fc", 128, 512))
    content |= {"module.queue": torch.randn(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    file = {"epoch": 200, "arch": "resnet50", "state_dict": content, "optimizer": optimizer()}
    return File("MoCo v1, v2", file, RESNET, network, "module.encoder_q.")


def moco_v2() -> File:
    (tensors, network), (other, _) = resnet(), resnet()
    heads = linear("fc.0", 512, 512) | linear("fc.2", 128, 512)
    content = under("module.encoder_q.", tensors | heads) | under("module.encoder_k.", other | heads)
    content |= {"module.queue": torch.randn(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    file = {"epoch": 800, "arch": "resnet50", "state_dict": content}
    return File("MoCo v1, v2", file, RESNET, network, "module.encoder_q.")


def moco_v2_query_alone() -> File:
    """MoCo's own file from which the authors took the key encoder and the queue."""
    tensors, network = resnet()
    content = {"state_dict": under("module.encoder_q.", tensors | linear("fc.0", 512, 512))}
    return File("MoCo v1, v2", content, RESNET, network, "module.encoder_q.")


def moco_v3(tensors: Names, other: Names, head: str, dims: int) -> dict[str, Any]:
    heads = {f"{head}.0.weight": torch.randn(64, dims), f"{head}.1.running_mean": torch.randn(64)}
    content = under("module.base_encoder.", tensors | heads) | under("module.momentum_encoder.", other | heads)
    content |= {"module.predictor.0.weight": torch.randn(64, 32), "module.predictor.1.bias": torch.randn(64)}
    return {"epoch": 300, "arch": "any", "state_dict": content, "optimizer": optimizer(), "scaler": {"scale": 1.0}}


def moco_v3_resnet() -> File:
    return moco_v3_file(resnet, "fc", 512, RESNET)


def moco_v3_vit() -> File:
    return moco_v3_file(vit, "head", 192, VIT)


def moco_v3_file(make: Callable[[], tuple[Names, Any]], head: str, dims: int, backbone: Any) -> File:
    (tensors, network), (other, _) = make(), make()
    content, task = moco_v3(tensors, other, head, dims), {"normalize": "imagenet"}
    return File("MoCo v3", content, backbone, network, "module.base_encoder.", task=task)


def swav() -> File:
    tensors, network = resnet()
    heads = linear("projection_head.0", 512, 512) | linear("projection_head.3", 128, 512)
    norm = {"projection_head.1.running_mean": torch.randn(512), "prototypes.weight": torch.randn(30, 128)}
    return File("SwAV, DeepCluster-v2", under("module.", tensors | heads | norm), RESNET, network, "module.")


def deepcluster_v2() -> File:
    tensors, network = resnet()
    heads = linear("projection_head.0", 512, 512) | {
        f"prototypes.prototypes{n}.weight": torch.randn(30, 128) for n in (0, 1)
    }
    file = {"epoch": 800, "state_dict": under("module.", tensors | heads), "optimizer": optimizer(), "amp": {}}
    return File("SwAV, DeepCluster-v2", file, RESNET, network, "module.")


def simclr_converted() -> File:
    tensors, network = resnet(width=0.5)
    content = {"state_dict": tensors | linear("fc", 1000, 1024)}
    return File("SimCLR", content, RESNET | {"width_mult": 0.5}, network, task={"normalize": "none"})


def simclr_of_compress() -> File:
    """TensorFlow's numbers in the place of names: a shortcut is made before its unit's three convolutions."""
    tensors, network = resnet(width=0.5)
    units = [f"layer{block}.{unit}." for block, depth in enumerate((3, 4, 6, 3), 1) for unit in range(depth)]
    convolutions, norms = ["conv1"], ["bn1"]
    for unit in units:
        if unit.endswith(".0."):
            convolutions.append(f"{unit}downsample.0")
            norms.append(f"{unit}downsample.1")
        convolutions += [f"{unit}conv1", f"{unit}conv2", f"{unit}conv3"]
        norms += [f"{unit}bn1", f"{unit}bn2", f"{unit}bn3"]
    assert len(convolutions) == len(norms) == 53
    names = {old: f"conv2d_{n}".removesuffix("_0") for n, old in enumerate(convolutions)}
    names |= {old: f"batch_normalization_{n}".removesuffix("_0") for n, old in enumerate(norms)}
    content = {f"{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": v for name, v in tensors.items()}
    content |= linear("fc", 1000, 1024)
    return File("SimCLR", content, RESNET | {"width_mult": 0.5}, network, task={"normalize": "none"})


def torchvision_sequential() -> File:
    """As in tutorials: nn.Sequential(*resnet.children()), and a projection head."""
    tensors, network = resnet()
    numbers = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    parts = {name: name.partition(".") for name in tensors if not name.startswith("fc")}
    content = {f"backbone.{numbers[parts[name][0]]}.{parts[name][2]}": tensors[name] for name in parts}
    return File("torchvision", content | linear("projection_head.0", 512, 512), RESNET, network)


def dino_heads(prefix: str) -> Names:
    return under(prefix, linear("mlp.0", 64, 192) | {"last_layer.weight_g": torch.ones(9, 1)})


def dino() -> File:
    (tensors, network), (other, _) = vit(), vit()
    content = {
        "student": under("module.backbone.", other) | dino_heads("module.head."),
        "teacher": under("backbone.", tensors) | dino_heads("head."),
        "optimizer": optimizer(),
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_tiny", patch_size=16),
        "dino_loss": {"center": torch.zeros(1, 9)},
    }
    return File("DINO", content, VIT, network, "teacher.backbone.", task={"normalize": "imagenet"})


def dino_resnet() -> File:
    (tensors, network), (other, _) = resnet(), resnet()
    content = {
        "student": under("module.backbone.", other) | dino_heads("module.head."),
        "teacher": under("module.backbone.", tensors) | dino_heads("module.head."),
    }
    return File("DINO", content, RESNET, network, "teacher.backbone.", task={"normalize": "imagenet"})


def dino_backbone() -> File:
    tensors, network = vit()
    return File("DINO", tensors, VIT, network, task={"normalize": "imagenet"})


DINOV2 = {"name": "timm", "model": "vit_small_patch14_dinov2"}


def dinov2() -> File:
    tensors, network = vit("vit_small_patch14_dinov2", 518)
    assert tensors["pos_embed"].shape == (1, 1370, 384)
    return File("DINOv2", tensors | {"mask_token": torch.zeros(1, 384)}, DINOV2 | {"img_size": 518}, network)


def dinov2_smaller() -> File:
    """timm's own reading of the file, for images of another size."""
    tensors, _ = vit("vit_small_patch14_dinov2", 518)
    _, network = vit("vit_small_patch14_dinov2", 84)
    content = tensors | {"mask_token": torch.zeros(1, 384)}
    return File("DINOv2", content, DINOV2 | {"img_size": 84}, timms_own(network, content))


def dinov2_registers() -> File:
    """The released names: registers by another name, and a position of the class token."""
    tensors, _ = vit("vit_small_patch14_reg4_dinov2", 112)
    content = {name.replace("reg_token", "register_tokens"): value for name, value in tensors.items()}
    content["pos_embed"] = torch.randn(1, 1 + 64, 384) * 0.02
    content["mask_token"] = torch.zeros(1, 384)
    _, network = vit("vit_small_patch14_reg4_dinov2", 84)
    backbone = {"name": "timm", "model": "vit_small_patch14_reg4_dinov2", "img_size": 84}
    return File("DINOv2", content, backbone, timms_own(network, content))


def dinov3() -> File:
    """Meta's names: layer scales and registers by other names, a masked bias of zeros, tables of the rotations."""
    tensors, network = vit("vit_small_patch16_dinov3", 64)
    content = {}
    for name, value in tensors.items():
        name = re.sub(r"gamma_([12])", r"ls\1.gamma", name).replace("reg_token", "storage_tokens")
        content[name] = value
        if name.endswith("attn.qkv.weight"):
            content[name.replace("weight", "bias")] = torch.zeros(len(value))
            content[name.replace("weight", "bias_mask")] = torch.zeros(len(value))
    content |= {"rope_embed.periods": torch.ones(16), "mask_token": torch.zeros(1, 384)}
    return File("DINOv3", content, {"name": "timm", "model": "vit_small_patch16_dinov3", "img_size": 64}, network)


CLIP: dict[str, Any] = {"name": "timm", "model": "vit_xsmall_patch16_clip_224", "img_size": 64}
OPENAI = {
    **{r"^patch_embed\.proj": "conv1", "^cls_token": "class_embedding", "^pos_embed": "positional_embedding"},
    **{"^norm_pre": "ln_pre", "^norm": "ln_post", r"^blocks\.": "transformer.resblocks.", r"\.norm([12])": r".ln_\1"},
    **{r"attn\.qkv\.": "attn.in_proj_", r"attn\.proj": "attn.out_proj", r"mlp\.fc1": "mlp.c_fc"},
    r"mlp\.fc2": "mlp.c_proj",
}


def published(tensors: Names, names: dict[str, str], prefix: str = "") -> Names:
    """The tensors under the names of another code."""
    renamed = {}
    for name, value in tensors.items():
        for pattern, replacement in names.items():
            name = re.sub(pattern, replacement, name)
        renamed[prefix + name] = value
    return renamed


def clip_text() -> Names:
    """The other tower of CLIP, whose names are like those of the images' one."""
    block = {"attn.in_proj_weight": torch.randn(96, 32), "ln_1.weight": torch.ones(32)}
    tower = {"positional_embedding": torch.randn(77, 32), "token_embedding.weight": torch.randn(99, 32)}
    tower |= {
        "text_projection": torch.randn(32, 16),
        "logit_scale": torch.tensor(4.6),
        "ln_final.weight": torch.ones(32),
    }
    return tower | under("transformer.resblocks.0.", block)


def clip_openai() -> File:
    tensors, network = vit(CLIP["model"], 64)
    content = published(tensors, OPENAI, "visual.") | {"visual.proj": torch.randn(256, 16)} | clip_text()
    content["visual.class_embedding"] = content["visual.class_embedding"][0, 0]
    content["visual.positional_embedding"] = content["visual.positional_embedding"][0]
    return File("CLIP", content, CLIP, network)


def clip_open() -> File:
    """open_clip's, with a network of timm as its tower of the images."""
    tensors, network = vit(size=64)
    content = under("visual.trunk.", tensors) | {"visual.head.proj.weight": torch.randn(16, 192)} | clip_text()
    return File("CLIP", content, VIT, network, "visual.trunk.", {"normalize": "half"})


CONVNEXT = {
    r"^stem\.": "downsample_layers.0.",
    r"stages\.(\d)\.downsample": r"downsample_layers.\1",
    **{r"\.blocks\.": ".", "conv_dw": "dwconv", r"mlp\.fc": "pwconv", r"^head\.norm": "norm"},
    **{r"mlp\.grn\.weight": "grn.gamma", r"mlp\.grn\.bias": "grn.beta"},
}


def convnext(model: str = "convnext_atto") -> File:
    """Meta's names; its point-wise convolutions are linear layers."""
    network: Any = shaken(timm.create_model(model, num_classes=0)).eval()
    content = published(network.state_dict(), CONVNEXT)
    for name, value in content.items():
        if ".pwconv" in name:
            content[name] = value.flatten(1) if value.ndim == 4 else value
        elif ".grn." in name:
            content[name] = value.reshape(1, 1, 1, -1)
    content |= linear("head", 1000, network.num_features)
    return File("ConvNeXt", {"model": content}, {"name": "timm", "model": model, "img_size": 64}, network)


def convnext_v2() -> File:
    return convnext("convnextv2_atto")


def swin() -> File:
    """Microsoft's: the map is halved at the end of a stage, and tables of each window are stored."""
    network: Any = shaken(timm.create_model("swin_tiny_patch4_window7_224", num_classes=0)).eval()
    content = {}
    for name, value in network.state_dict().items():
        name = re.sub(r"layers\.(\d)\.downsample", lambda match: f"layers.{int(match[1]) - 1}.downsample", name)
        content[name] = value
        if name.endswith("relative_position_bias_table"):
            content[name.replace("bias_table", "index")] = torch.zeros(49, 49, dtype=torch.long)
    content |= {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)} | linear("head", 1000, 768)
    backbone = {"name": "timm", "model": "swin_tiny_patch4_window7_224"}
    return File("Swin", {"model": content, "epoch": 299, "lr_scheduler": {}}, backbone, network)


def timms_own(network: Any, content: Names) -> Network:
    from timm.models.vision_transformer import checkpoint_filter_fn

    network.load_state_dict(checkpoint_filter_fn(dict(content), network))
    found: Network = network
    return found


def conv(*shape: int, norm: bool = True, **more: int) -> list[nn.Module]:
    norms = [nn.BatchNorm2d(shape[1])] if norm else []
    return [nn.Conv2d(*shape, **more), *norms, nn.ReLU()]  # type: ignore[arg-type]


def sobel_layers() -> nn.Sequential:
    """Two fixed convolutions, which DeepCluster's files contain too."""
    layers = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 2, 3, padding=1))
    across = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    with torch.no_grad():
        for layer in layers:
            layer.get_parameter("bias").zero_()
        layers.get_parameter("0.weight").fill_(1 / 3)
        layers.get_parameter("1.weight").copy_(torch.stack([across, across.T])[:, None])
    return layers


def deepclusters(features: list[nn.Module], classifier: list[nn.Module], arch: str, backbone: dict[str, Any]) -> File:
    parts = {
        "features": shaken(nn.Sequential(*features)).eval(),
        "classifier": shaken(nn.Sequential(*classifier)).eval(),
    }
    tensors = under("features.module.", parts["features"].state_dict())
    tensors |= under("classifier.", parts["classifier"].state_dict()) | linear("top_layer", 50, 512)
    sobel = sobel_layers()
    file = {
        "epoch": 500,
        "arch": arch,
        "state_dict": tensors | under("sobel.", sobel.state_dict()),
        "optimizer": optimizer(),
    }
    return File(
        "DeepCluster",
        file,
        backbone | {"width_mult": 0.125, "sobel": True},
        lambda x: parts["classifier"](parts["features"](sobel(x)).flatten(1)),
    )


def deepcluster_alexnet() -> File:
    pool = nn.MaxPool2d(3, 2)
    features = [*conv(2, 16, 11, stride=4, padding=2), pool, *conv(16, 32, 5, padding=2), pool]
    features += [*conv(32, 48, 3, padding=1), *conv(48, 48, 3, padding=1), *conv(48, 32, 3, padding=1), pool]
    classifier = [nn.Dropout(), nn.Linear(1152, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 512), nn.ReLU()]
    return deepclusters(features, classifier, "alexnet", {"name": "alexnet-deepcluster"})


def deepcluster_vgg16() -> File:
    features: list[nn.Module] = []
    channels = 2
    for width, depth in ((8, 2), (16, 2), (32, 3), (64, 3), (64, 3)):
        for _ in range(depth):
            features += conv(channels, width, 3, padding=1)
            channels = width
        features.append(nn.MaxPool2d(2, 2))
    classifier = [nn.Linear(64 * 49, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 512), nn.ReLU()]
    return deepclusters(features, classifier, "vgg16", {"name": "vgg16"})


def of_compress(tensors: Names) -> dict[str, Any]:
    wrapped = under("module.", tensors)
    return {"opt": argparse.Namespace(alpha=0.999), "model": wrapped, "optimizer": optimizer(), "epoch": 130}


def compress_resnet() -> File:
    tensors, network = resnet(block=BasicBlock, depths=(2, 2, 2, 2))
    return File("CompRess", of_compress(tensors), RESNET | {"name": "resnet18"}, network, "module.")


def compress_resnet_projected() -> File:
    tensors, network = resnet()
    return File("CompRess", of_compress(tensors | linear("fc", 8192, 512)), RESNET, network, "module.")


def compress_mobilenet() -> File:
    network = shaken(mobilenet_v2(width_mult=0.25)).eval()
    tensors = under("features.", network.features.state_dict()) | linear("fc", 2048, 1280)
    network.classifier = nn.Identity()
    backbone = {"name": "mobilenet-v2", "width_mult": 0.25, "img_size": 64}
    return File("CompRess", of_compress(tensors), backbone, network, "module.")


def compress_alexnet() -> File:
    """Its two fully-connected layers stand without dropout under a name of their own, the second without its ReLU."""
    pool = nn.MaxPool2d(3, 2)
    layers = [*conv(3, 8, 11, stride=4, padding=2, norm=False), pool, *conv(8, 24, 5, padding=2, norm=False), pool]
    for shape in ((24, 48), (48, 32), (32, 32)):
        layers += conv(*shape, 3, padding=1, norm=False)
    features = nn.Sequential(*layers, pool)
    feats = nn.Sequential(nn.Linear(32 * 36, 512), nn.ReLU(), nn.Linear(512, 512))
    tensors = under("features.", features.state_dict()) | under("feats.", feats.state_dict())
    backbone = {"name": "alexnet", "width_mult": 0.125}
    file = of_compress(tensors | linear("fc", 2048, 512))
    return File("CompRess", file, backbone, lambda x: F.relu(feats(features(x).flatten(1))), "module.")


def rotnet() -> File:
    pool = nn.MaxPool2d(3, 2)
    blocks = [
        nn.Sequential(*conv(3, 8, 11, stride=4, padding=2)),
        pool,
        nn.Sequential(*conv(8, 24, 5, padding=2)),
        pool,
    ]
    blocks += [nn.Sequential(*conv(*shape, 3, padding=1)) for shape in ((24, 48), (48, 32), (32, 32))]
    fc: list[nn.Module] = [nn.Flatten()]
    for inputs in (32 * 36, 512):
        fc += [nn.Linear(inputs, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU()]
    network = shaken(nn.Sequential(*blocks, pool, nn.Sequential(*fc))).eval()
    tensors = under("_feature_blocks.", network.state_dict()) | linear("_feature_blocks.9.0", 4, 512)
    backbone = {"name": "alexnet-bn", "width_mult": 0.125}
    return File("RotNet", {"epoch": 50, "network": tensors}, backbone, network, "network.")


FAMILIES = (
    *(torchvision_resnet, torchvision_sequential, torchvision_by_name, timm_resnet, timm_vit),
    *(moco_v1, moco_v2, moco_v2_query_alone, moco_v3_resnet, moco_v3_vit),
    *(swav, deepcluster_v2, simclr_converted, simclr_of_compress),
    *(dino, dino_resnet, dino_backbone, dinov2, dinov2_smaller, dinov2_registers, dinov3),
    *(clip_openai, clip_open, convnext, convnext_v2, swin),
    *(deepcluster_alexnet, deepcluster_vgg16),
    *(compress_resnet, compress_resnet_projected, compress_mobilenet, compress_alexnet, rotnet),
)


NORMALIZATIONS = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "half": ([0.5] * 3, [0.5] * 3),
    "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_imported_file_gives_the_published_activations(
    family: Callable[[], File], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ssltransfer")
    torch.manual_seed(7)
    made = family()
    file, output = tmp_path / "weights.pth.tar", tmp_path / "m" / "manifest.json"
    # The form before PyTorch 1.6, in which most of these were published.
    torch.save(made.content, file, _use_new_zipfile_serialization=False)
    task = {"name": "imported", "file": str(file), **(made.task or {})}
    spec = Pretext.model_validate({"task": task, "backbone": made.backbone})
    check_weights(spec)
    pretext.run(spec, output=output, threads=1)
    assert f"(100 % of the numbers), prefix {made.prefix!r}" in caplog.text
    model = read_model(output)
    size = model.backbone.options.img_size
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    given = images / 255
    recorded = {timm_vit: "half", clip_openai: "clip"}.get(family, "imagenet")
    stated = (made.task or {}).get("normalize", recorded)
    if stated != "none":
        values = NORMALIZATIONS[stated]
        given = torchvision.transforms.functional.normalize(given, *values)
    layer = model.backbone.layers[-1]
    with torch.no_grad():
        found, wanted = model.layers_of(images, [layer])[layer], made.network(given)
    assert wanted.std() > 1e-3
    assert float((found - wanted).abs().max()) <= 1e-5 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize(("family", "size"), [(clip_openai, 96), (clip_open, 96), (convnext, 32), (swin, 128)])
def test_imported_converted_file_fits_another_image_size(family: Callable[[], File], size: int, tmp_path: Path) -> None:
    """The check before a run and the import agree."""
    made = family()
    torch.save(made.content, tmp_path / "w.pth")
    task = {"name": "imported", "file": str(tmp_path / "w.pth"), **(made.task or {})}
    spec = Pretext.model_validate({"task": task, "backbone": made.backbone | {"img_size": size}})
    check_weights(spec)
    pretext.run(spec, output=tmp_path / "m" / "manifest.json", threads=1)


def table() -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    """Rows of docs/compress.md: family, backbones, options of the task."""
    text = (DOCS / "compress.md").read_text(encoding="utf-8")
    rows = re.search(r"^\| checkpoint of \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert rows
    for row in rows[1].splitlines():
        family, _, backbones, task = (cell.strip() for cell in row.strip("|").split("|"))
        code = [[yaml.safe_load(span) for span in re.findall(r"`([^`]+)`", cell)] for cell in (backbones, task)]
        named = [{"name": one} if isinstance(one, str) else one for one in code[0]]
        yield family, named, {key: value for one in code[1] for key, value in one.items()}


def test_imported_families_match_the_documents() -> None:
    said: dict[str, set[tuple[Any, ...]]] = {}
    tried: dict[str, set[tuple[Any, ...]]] = {}
    for family, backbones, task in table():
        for backbone in backbones if family != "this package" else []:
            Pretext.model_validate({"task": {"name": "imported", "file": "f", **task}, "backbone": backbone})
            assert backbone["name"] != "timm" or timm.is_model(backbone["model"])
            said.setdefault(family, set()).add((backbone["name"], backbone.get("sobel", False), task.get("normalize")))
    for made in (family() for family in FAMILIES):
        told = (made.backbone["name"], made.backbone.get("sobel", False), (made.task or {}).get("normalize"))
        tried.setdefault(made.family, set()).add(told)
    assert said == tried


def test_imported_simclr_width_four_has_its_shapes() -> None:
    with torch.device("meta"):
        theirs, ours = WideResNet(4.0), build_backbone(ResNet50(width_mult=4), include_top=True)
    shapes = {name: value.shape for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    assert shapes == {name: value.shape for name, value in ours.state_dict().items()}
    assert shapes["conv1.weight"][0] == 256 and theirs.fc.in_features == 8192


def test_imported_swiglu_dinov2_is_renamed() -> None:
    """The giant one, by names and shapes alone: its network has a thousand million parameters."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    from ssltransfer.models.checkpoint_formats import renamed

    with torch.device("meta"):
        theirs: Any = timm.create_model("vit_giant_patch14_dinov2", num_classes=0)
    content = {
        name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): value
        for name, value in theirs.state_dict().items()
    }
    content["mask_token"] = torch.zeros(1, 1536)  # by which timm knows such a file
    wanted = checkpoint_filter_fn(dict(content), theirs)
    assert renamed(content, wanted).keys() - {"mask_token"} == wanted.keys() == theirs.state_dict().keys()


ALEX = {"name": "alexnet", "width_mult": 0.125, "img_size": 64}
SMALL = AlexNet(width_mult=0.125, img_size=64)


def imported(file: Path, **more: Any) -> Pretext:
    return Pretext.model_validate({"task": {"name": "imported", "file": str(file), **more}, "backbone": ALEX})


def timm_file(model: str, folder: Path, **task: Any) -> Any:
    torch.save(timm.create_model(model, num_classes=0).state_dict(), folder / "w.pth")
    spec = {
        "task": {"name": "imported", "file": str(folder / "w.pth"), **task},
        "backbone": {"name": "timm", "model": model},
    }
    pretext.run(Pretext.model_validate(spec), output=folder / "m" / "manifest.json", threads=1)
    return read_model(folder / "m" / "manifest.json").normalization


def test_imported_weights_of_timm_have_its_normalization(tmp_path: Path) -> None:
    assert timm_file("vit_tiny_patch16_224", tmp_path) == "half"


def test_imported_normalization_that_contradicts_timm_is_refused(tmp_path: Path) -> None:
    model = "vit_tiny_patch16_224.augreg_in21k"
    with pytest.raises(ArtifactError, match="normalized by `half`, not `imagenet`; remove `normalize` of the task"):
        timm_file(model, tmp_path, normalize="imagenet")


def test_imported_normalization_must_be_stated_where_timm_has_several(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="different normalizations; state `normalize` of the task: `"):
        timm_file("vit_small_patch16_224", tmp_path)


def test_imported_normalization_by_mean_and_std(tmp_path: Path) -> None:
    torch.save(build_backbone(SMALL, include_top=True).state_dict(), tmp_path / "w.pth")
    values: dict[str, list[float]] = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
    for n in range(2):  # the second file is one of this package
        output = tmp_path / str(n) / "manifest.json"
        pretext.run(imported(tmp_path / "w.pth", normalize=values), output=output, threads=1)
        normalization: Any = read_model(output).normalization
        assert normalization == values
        images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
        wanted = torchvision.transforms.functional.normalize(images / 255, values["mean"], values["std"])
        assert torch.allclose(normalize(images, normalization), wanted)
        (tmp_path / "w.pth").unlink()
        (tmp_path / "w.pth").symlink_to(output.parent / "backbone.safetensors")


def renamed_file(folder: Path) -> tuple[Names, Path]:
    """A network whose names are other, in another order, so that it matches neither by name nor by order."""
    tensors = build_backbone(SMALL, include_top=True, seed=4).state_dict()
    other = {name.replace("features.", "net.part_").replace("classifier.", "net.head_"): name for name in tensors}
    torch.save({name: tensors[old] for name, old in reversed(other.items())}, folder / "w.pth")
    return tensors, folder / "w.pth"


RULES = {r"^net\.": "", r"^part_(\d+)": r"features.\1", "^head_": "classifier."}


def test_imported_names_are_renamed_in_order(tmp_path: Path) -> None:
    tensors, file = renamed_file(tmp_path)
    with pytest.raises(ArtifactError, match=r"features\.0\.weight is missing \(0 of 10"):
        pretext.run(imported(file), output=tmp_path / "n" / "manifest.json", threads=1)
    spec = imported(file, rename=RULES)
    assert Pretext.parse(spec.canonical()) == spec  # with the order of the rules
    assert spec != imported(file, rename=dict(reversed(RULES.items())))
    output = tmp_path / "m" / "manifest.json"
    pretext.run(spec, output=output, threads=1)
    found = read_model(output).backbone.state_dict()
    assert found.keys() == tensors.keys() and all(torch.equal(value, found[key]) for key, value in tensors.items())
    assert read_json(output)["spec"]["task"]["rename"] == [list(rule) for rule in RULES.items()]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"^net2": ""}, r"`rename`: '\^net2' matches no tensor; the file has net\.head_1\.bias, net\.head_1\.weight, "),
        (RULES | {"^net": ""}, r"'\^net' matches no tensor; the file has classifier\.1\.bias, "),
        (
            {r"part_\d+": "part"},
            r"gives both net\.part_10\.bias and net\.part_8\.bias the name net\.part\.bias; make it more specific",
        ),
    ],
)
def test_imported_refuses_wrong_rules(rules: dict[str, str], said: str, tmp_path: Path) -> None:
    _, file = renamed_file(tmp_path)
    with pytest.raises(ArtifactError, match=said):
        check_weights(imported(file, rename=rules))


@pytest.mark.parametrize("rule", [{"(": ""}, {"a": r"\1"}, {"a": 1}])
def test_imported_refuses_what_is_not_a_rule(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is not a regular expression with a replacement|valid string"):
        imported(Path("w.pth"), rename=rule)


@pytest.mark.parametrize(
    "values", [{"mean": [0, 0, 0]}, {"mean": [0.5], "std": [1]}, {"mean": [0, 0, 0], "std": [1, 0, 1]}]
)
def test_imported_normalization_needs_three_channels(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="normalize"):
        imported(Path("w.pth"), normalize=values)


def test_imported_file_of_another_network_is_named(tmp_path: Path) -> None:
    torch.save(torchvision.models.get_model("squeezenet1_1").state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        ArtifactError, match=r"these are torchvision's names of squeezenet1_1: use `backbone: \{name: torch"
    ):
        pretext.run(imported(tmp_path / "w.pth"), output=tmp_path / "m" / "manifest.json", threads=1)


def test_imported_registers_need_the_network_with_registers(tmp_path: Path) -> None:
    state = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=56).state_dict()
    state |= {"mask_token": torch.zeros(1, 384), "register_tokens": torch.randn(1, 4, 384)}
    torch.save(state, tmp_path / "w.pth")
    spec = imported(tmp_path / "w.pth").model_dump() | {"backbone": DINOV2 | {"img_size": 56}}
    with pytest.raises(ArtifactError, match=r"not register_tokens \(1 .*these registers vit_small_patch14_reg4_dinov2"):
        pretext.run(Pretext.model_validate(spec), output=tmp_path / "m" / "manifest.json", threads=1)


def test_imported_deeper_network_is_named(tmp_path: Path) -> None:
    """A ResNet-34 has every tensor of a ResNet-18, in the same shapes."""
    torch.save(torchvision.models.get_model("resnet34").state_dict(), tmp_path / "w.pth")
    spec = imported(tmp_path / "w.pth").model_dump() | {"backbone": "resnet18"}
    with pytest.raises(ArtifactError, match=r"but not layer1\.2\.conv1\.weight.*torchvision's names of resnet34"):
        pretext.run(Pretext.model_validate(spec), output=tmp_path / "m" / "manifest.json", threads=1)


def test_imported_weights_without_activations_are_refused(tmp_path: Path) -> None:
    state = build_backbone(SMALL, include_top=True).state_dict()
    torch.save({key: torch.zeros_like(value) for key, value in state.items()}, tmp_path / "w.pth")
    with pytest.raises(ArtifactError, match=r"the last layer of alexnet-w0\.125-64px is constant or not finite"):
        pretext.run(imported(tmp_path / "w.pth"), output=tmp_path / "m" / "manifest.json", threads=1)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_imported_network_has_all_layers(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "ssltransfer")
    source = build_backbone(SMALL, include_top=True, seed=4)
    tensors = {f"module.{key}": value for key, value in source.state_dict().items()}
    tensors["module.classifier.6.weight"] = torch.zeros(10, 512)
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": tensors, "epoch": 3}, file)
    else:
        safetensors.torch.save_file(tensors, file)
    pretext.run(imported(file, normalize="half"), output=tmp_path / "m" / "manifest.json", threads=1)
    assert f"{file}: 14 of 14 tensors (100 % of the numbers), prefix 'module.', 1 left in the file" in caplog.text
    model = read_model(tmp_path / "m" / "manifest.json")
    assert model.normalization == "half" and model.backbone.layers[-1] == "fc7"
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.backbone.state_dict().items())
    assert read_json(tmp_path / "m" / "manifest.json")["file"] == file_digest(file)
    export(tmp_path / "m" / "manifest.json", tmp_path / "again.pth")
    card = (tmp_path / "again.pth.md").read_text()
    assert f"- Origin: `{file.name}`, BLAKE2b {file_digest(file)}: 14 of 14 tensors" in card


def test_imported_convolutions_give_convolutions(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "ssltransfer")
    tensors = build_backbone(SMALL, include_top=False, seed=4).state_dict()
    torch.save(tensors, tmp_path / "w.pth")
    pretext.run(imported(tmp_path / "w.pth"), output=tmp_path / "m" / "manifest.json", threads=1)
    assert "no fully-connected layers; the layers are conv1, conv2" in caplog.text
    assert read_model(tmp_path / "m" / "manifest.json").backbone.layers[-1] == "conv5"


def test_imported_prefix_selects_a_network(tmp_path: Path):
    parts = {name: build_backbone(SMALL, include_top=True, seed=i) for i, name in enumerate("ab")}
    torch.save({name: backbone.state_dict() for name, backbone in parts.items()}, tmp_path / "w.pth")
    output = tmp_path / "m" / "manifest.json"
    with pytest.raises(ArtifactError, match="select one by `prefix`"):
        pretext.run(imported(tmp_path / "w.pth"), output=output, threads=1)
    pretext.run(imported(tmp_path / "w.pth", prefix="b."), output=output, threads=1)
    found = read_model(output).backbone.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in parts["b"].state_dict().items())


def own(folder: Path) -> Path:
    """A model of this package, whose images were divided by their own deviation."""
    with WorkDir("student", folder / "manifest.json", "{}", {}) as work:
        work.finish(write_model(folder, build_backbone(SMALL, include_top=True, seed=4), "per-image", {}))
    return folder


@pytest.mark.parametrize("form", ["backbone", "exported"])
def test_imported_own_file_is_verified(tmp_path: Path, form: str) -> None:
    folder, output = own(tmp_path / "own"), tmp_path / "m" / "manifest.json"
    file = folder / "backbone.safetensors"
    if form == "exported":
        file = tmp_path / "student.safetensors"
        export(folder / "manifest.json", file)
    pretext.run(imported(file), output=output, threads=1)
    model, source = read_model(output), read_model(folder / "manifest.json")
    assert model.normalization == "per-image" and read_json(output)["normalize"] == "per-image"
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(model.layers_of(images, ["fc7"])["fc7"], source.layers_of(images, ["fc7"])["fc7"])
    alone = Pretext.model_validate({"task": {"name": "imported", "file": str(file)}})
    assert alone == imported(file) and alone.canonical() == imported(file).canonical()
    larger = imported(file).model_copy(update={"backbone": SMALL.model_copy(update={"img_size": 128})})
    with pytest.raises(ArtifactError, match=r"backbone with `img_size: 64`, not `img_size: 128`; leave `backbone` out"):
        pretext.run(larger, output=tmp_path / "l" / "manifest.json", threads=1)
    with pytest.raises(ArtifactError, match="normalized by `per-image`, not `imagenet`; remove `normalize`"):
        pretext.run(imported(file, normalize="imagenet"), output=tmp_path / "n" / "manifest.json", threads=1)
    if form == "backbone":
        about = read_json(folder / "backbone.json")
        write_json(folder / "backbone.json", about | {"activations": [x + 1 for x in about["activations"]]})
        with pytest.raises(ArtifactError, match="on fixed inputs its last layer gives"):
            pretext.run(imported(file), output=tmp_path / "o" / "manifest.json", threads=1)


# Files without weights, or with those of another network.


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def saved(content: Any, **more: Any) -> bytes:
    torch.save(content, file := io.BytesIO(), **more)
    return file.getvalue()


def network(**changed: Any) -> Names:
    """The right tensors, under a prefix, with a classifier of any number of classes."""
    tensors = build_backbone(SMALL.model_copy(update=changed), include_top=True, seed=4).state_dict()
    return under("module.", tensors | linear("classifier.6", 37, 512))


def half() -> Names:
    tensors = network()
    return {name: tensors[name] for name in list(tensors)[::2]}


def not_numbers() -> Names:
    tensors = network()
    tensors["module.features.3.weight"][0, 0, 0, 0] = float("nan")
    return tensors


def npz() -> bytes:
    tensors: dict[str, Any] = {name: value.numpy() for name, value in network().items()}
    np.savez(file := io.BytesIO(), **tensors)
    return file.getvalue()


def program() -> bytes:
    part = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(part, file := io.BytesIO())
    return file.getvalue()


def in_itself() -> dict[str, Any]:
    content: dict[str, Any] = {"state_dict": network()}
    content["more"] = content
    return content


WRONG: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "half of the tensors": ("w.pth", lambda: saved(half()), r"module\.features\.\d+\.\w+ is missing \(7 of 14 tensors"),
    "another architecture": (
        "w.pth",
        lambda: saved(torchvision.models.shufflenet_v2_x0_5().state_dict()),
        r"does not match the backbone alexnet-w0\.125-64px: .* \(0 of 10 tensors match; the file has conv1\.0\.weight",
    ),
    "another width": (
        "w.pth",
        lambda: saved(network(width_mult=0.25)),
        r"features\.0\.weight has shape \(16, 3, 11, 11\), not",
    ),
    "RotNet's network in network": (
        "w.pth",
        lambda: saved({"network": {"_feature_blocks.0.Block1_ConvB1.0.weight": torch.zeros(192, 3, 5, 5)}}),
        r"the file has network\._feature_blocks\.0\.Block1_ConvB1\.0\.weight",
    ),
    "gradients for colors": (
        "w.pth",
        lambda: saved(network() | {"module.features.0.weight": torch.zeros(8, 2, 11, 11)}),
        r"its first layer has two input channels: set `sobel: true` of the backbone",
    ),
    "values that are not finite": (
        "w.pth",
        lambda: saved(not_numbers()),
        r"features\.3\.weight has values that are not finite",
    ),
    "a malicious pickle": (
        "w.pth",
        lambda: saved({"state_dict": network(), "more": Evil()}),
        r"a pickle of more than tensors \((posix|nt)\.system\), which could run code",
    ),
    "an old malicious pickle": (
        "w.pth",
        lambda: saved({"more": Evil()}, _use_new_zipfile_serialization=False),
        r"\((posix|nt)\.system\), which could run code",
    ),
    "a whole network": (
        "w.pth",
        lambda: saved(nn.Linear(2, 2)),
        r"\(torch\.nn\.modules\.linear\.Linear\), which could run",
    ),
    "truncated": ("w.pth", lambda: saved(network())[:-5000], "truncated or damaged"),
    "truncated, old": (
        "w.pth.tar",
        lambda: saved(network(), _use_new_zipfile_serialization=False)[:-5000],
        "truncated or damaged .*; download it again",
    ),
    "a web page": (
        "w.pth",
        lambda: b"<!DOCTYPE html>\n<html>404</html>",
        "not a file of weights: it begins with b'<!DOC",
    ),
    "a pointer of Git LFS": (
        "w.safetensors",
        lambda: b"version https://git-lfs",
        "a pointer of Git LFS, not the weights; run `git lfs pull`",
    ),
    "an empty file": ("w.pth", lambda: b"", "empty file"),
    "truncated safetensors": ("w.safetensors", lambda: safetensors.torch.save(network())[:-9], "truncated or damaged"),
    "half of its head": ("w.safetensors", lambda: safetensors.torch.save(network())[:90], "truncated or damaged"),
    "an npz": ("w.npz", npz, r"w\.npz: arrays of NumPy; save them as tensors"),
    "a program": ("w.pt", program, "a TorchScript program, not a state dict"),
    "a dict in itself": ("w.pth", lambda: saved(in_itself()), "damaged .maximum recursion depth"),
    "no tensors": ("w.pth", lambda: saved({"lr": 0.1}), "contains no tensors"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_imported_refuses_wrong_files(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, content, said = WRONG[wrong]
    Path(name).write_bytes(content())
    refused(Path(name), said, capsys)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"prefix": "encoder."},
            r"encoder\.features\.0\.weight is missing \(0 of 14 .*remove `prefix` so that it is detected",
        ),
        ({"allow_missing": ["classifier.*"]}, None),
        ({}, None),
    ],
)
def test_imported_refuses_wrong_prefix_and_classes(
    more: dict[str, Any],
    said: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "ssltransfer")
    monkeypatch.chdir(tmp_path)
    Path("w.pth").write_bytes(saved(network()))
    if said is not None:
        refused(Path("w.pth"), said, capsys, **more)
        return
    pretext.run(imported(Path("w.pth"), **more), output=Path("m/manifest.json"), threads=1)
    assert "14 of 14 tensors (100 % of the numbers), prefix 'module.', 2 left" in caplog.text


def refused(file: Path, said: str, capsys: pytest.CaptureFixture[str], **more: Any) -> None:
    """One sentence that begins with the file, exit code 1, nothing run and nothing written."""
    spec = json.dumps({"task": {"name": "imported", "file": str(file), **more}, "backbone": ALEX})
    assert main(["pretext", "--spec", spec, "--output", "m/manifest.json", "--threads", "1"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"ssltransfer pretext: {file}: ") and "\n" not in error and "weights_only" not in error
    assert re.search(said, error), error
    assert not Path("executed").exists()
    assert [path.name for path in Path("m").iterdir()] == ["work"]
    assert not [path for path in Path("m/work").rglob("*") if path.suffix in (".safetensors", ".partial", ".json")]
