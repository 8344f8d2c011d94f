"""Rates of this machine, measured in about two seconds."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from ssltransfer.config.backbones import ResNet18
from ssltransfer.data.image_io import read
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.models.build import build_backbone
from ssltransfer.models.flops import flops
from ssltransfer.planning.machine import Machine
from ssltransfer.processes import available_cores
from ssltransfer.training.devices import Devices

SECONDS = 0.5  # of each of four measurements


def measure_machine(cores: int | None = None) -> Machine:
    """Rates of one device and one core: a ResNet-18's passes, a matrix product, and decoding of a JPEG file.

    Args:
        cores: that decode for one device; default: all, divided among the GPUs.
    """
    cuda, threads = torch.cuda.is_available(), torch.get_num_threads()
    cores = cores or max(1, available_cores() // max(1, torch.cuda.device_count()))
    torch.set_num_threads(cores)
    devices = Devices(torch.device("cuda" if cuda else "cpu"), 0)
    options, batch, side = (ResNet18(), 128, 8192) if cuda else (ResNet18(img_size=64), 8, 1024)
    network = build_backbone(options, include_top=False).to(devices.device).to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, options.img_size, options.img_size, device=devices.device)
    matrix = torch.rand(side, side, device=devices.device, dtype=torch.float16 if cuda else torch.float32)
    layer = network.layers[-1]

    def forward() -> None:
        with torch.no_grad(), devices.autocast():
            network(images, [layer])

    def training() -> None:
        with devices.autocast():
            loss = network(images, [layer])[layer].float().square().mean()
        loss.backward()

    work = batch * flops(options)
    try:
        paces = {
            "forward/resnet18": work * _per_second(forward),
            "training/resnet18": 3 * work * _per_second(training),
            "products": 2 * side**3 * _per_second(lambda: torch.mm(matrix, matrix)),
        }
        torch.set_num_threads(1)  # as in a loader worker
        paces["decoding/files"] = _decoding()
    finally:
        torch.set_num_threads(threads)
    name = torch.cuda.get_device_name() if cuda else f"CPU, {cores} threads"
    return Machine(cores=cores, paces=paces, where=f"this machine ({name}), in {4 * SECONDS:g} seconds")


def _decoding() -> float:
    """Images per second and core: a 500x375 JPEG file, decoded, resized and cropped."""
    view, rng = ResizeCenterCrop(256, 224), Random(0)
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "image.jpg")
        Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(file, quality=90)
        return _per_second(lambda: view.apply(read(file, min_short_side=view.min_short_side), rng))


def _per_second(work: Callable[[], object]) -> float:
    """Calls per second, after one that is not counted."""
    calls, started = -1, 0.0
    while calls < 1 or time.perf_counter() - started < SECONDS:
        if calls == 0:
            started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        calls += 1
    return calls / (time.perf_counter() - started)
