"""The features stage, from files to a finished Zarr store, against the bare network on images in memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.harness import images
from benchmarks.harness.measure import OURS, Comparison, Setting, interleave
from ssltransfer.artifacts.files import write_json
from ssltransfer.artifacts.index import read_index
from ssltransfer.config.backbones import BackboneOptions, CaffeNet, Vgg16
from ssltransfer.config.entities import Features
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import read_model, write_model
from ssltransfer.planning.networks import flops
from ssltransfer.stages import features
from ssltransfer.training.devices import plan_devices

DEVICES = ("cpu", "cuda")
GOAL = 0.95
BATCH, DRAWN = 64, 512
BARE, LOADING = "bare forward", "loading alone"


def run(setting: Setting) -> Iterator[Comparison]:
    """The whole stage is timed: reading and proving the model, loading, pooling, writing with fsync, digests."""
    drawn = images.draw(setting.folder, setting.size(DRAWN, BATCH))
    width = 0.125 if setting.small else 1.0
    for options, layer, side, full in (
        (CaffeNet(width_mult=width), "conv4", 5, 2048),
        (Vgg16(width_mult=width), "conv4_3", 4, 128),
    ):
        n = setting.size(full if setting.device == "cpu" else 8 * full, BATCH)
        data = images.repeated(drawn, n, setting.folder / f"{layer}.parquet")
        yield _compared(setting, options, layer, side, data, n)


def _compared(setting: Setting, options: BackboneOptions, layer: str, side: int, data: Path, n: int) -> Comparison:
    model = _model(setting.folder / f"{options.name}-model", build_backbone(options, include_top=False))
    devices, index, loaded = plan_devices(setting.threads), read_index(data), read_model(model, setting.device)
    spec = Features.model_validate({"model": "m", "layer": layer, "pool": {"max": side}})
    output = setting.folder / "features" / layer / "manifest.json"
    backbone = loaded.backbone
    resident = torch.rand(BATCH, 3, options.img_size, options.img_size, device=setting.device)
    resident = resident.contiguous(memory_format=torch.channels_last)

    def stage() -> None:
        features.run(spec, model=model, data=data, output=output, threads=setting.threads)

    @torch.inference_mode()
    def bare() -> None:
        for _ in range(0, n, BATCH):
            with devices.autocast():
                backbone(resident, [layer])

    def loading() -> None:
        keys = sequential_keys(range(n), BATCH)
        for _ in load_batches(index, loaded.view, keys, seed=0, workers=devices.workers):
            pass

    contenders = {OURS: stage, BARE: bare, LOADING: loading}
    samples = interleave(contenders, setting.rounds, lambda name: shutil.rmtree(output.parent, ignore_errors=True))
    case = f"{options.slug} {layer}, {n} files of 500x375, {setting.threads} threads"
    paces = {f"forward/{options.name}": (BARE, n * flops(options))}
    return Comparison(case, n, "images", samples, {BARE: GOAL}, (LOADING,), paces)


def _model(folder: Path, backbone: Backbone) -> Path:
    manifest = folder / "manifest.json"
    write_json(manifest, {"stage": "pretext", **write_model(folder, backbone, "imagenet", {})})
    return manifest
