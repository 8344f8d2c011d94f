"""Networks in channels_last, as all stages use them, against torch's default layout: forward passes and training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.harness.measure import OURS, Comparison, Setting, interleave, seconds_of_pass
from ssltransfer.config.backbones import BackboneOptions, CaffeNet, ResNet18, ResNet50, ResNet50V2, RevNet50
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone
from ssltransfer.training.devices import plan_devices

DEVICES = ("cpu", "cuda")
DEFAULT = "default layout"
NETWORKS: tuple[tuple[BackboneOptions, int], ...] = (
    (CaffeNet(width_mult=0.25), 16),
    (ResNet18(width_mult=0.25, img_size=64), 64),
    (ResNet18(), 8),
    (ResNet50(width_mult=0.25, img_size=64), 64),
    (ResNet50V2(width_mult=0.25, img_size=64), 64),
    (RevNet50(width_mult=0.25, img_size=64), 64),
)


def run(setting: Setting) -> Iterator[Comparison]:
    """Small networks of the studies, and a ResNet-18 of full size, on one batch in memory."""
    for options, batch in NETWORKS[: setting.size(len(NETWORKS), 1)]:
        n = setting.size(batch if setting.device == "cpu" else 16 * batch, 2)
        network = build_backbone(options, include_top=False).to(setting.device)
        images = torch.rand(n, 3, options.img_size, options.img_size, device=setting.device)
        for work in (forward, training):
            contenders = {}
            for name, layout in ((OURS, torch.channels_last), (DEFAULT, torch.contiguous_format)):
                copied = copy.deepcopy(network).to(memory_format=layout)
                step = work(copied, images.to(memory_format=layout), setting.threads)
                contenders[name] = partial(seconds_of_pass, step, setting.size(1, 0))
            case = f"{options.slug}, {work.__name__}, {n} images of {options.img_size}, {setting.threads} threads"
            yield Comparison(case, n, "images", interleave(contenders, setting.rounds), {DEFAULT: None})


def forward(network: Backbone, images: torch.Tensor, threads: int) -> Callable[[], None]:
    """Forward passes, as for features."""
    network.eval()
    devices = plan_devices(threads)

    @torch.inference_mode()
    def infer() -> None:
        with devices.autocast():
            network(images)

    return infer


def training(network: Backbone, images: torch.Tensor, threads: int) -> Callable[[], None]:
    """Forward and backward passes."""
    network.train()
    devices = plan_devices(threads)

    def train() -> None:
        network.zero_grad()
        with devices.autocast():
            loss = network(images)[network.layers[-1]].float().square().mean()
        loss.backward()

    return train
