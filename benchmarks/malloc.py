"""Networks in jobs on a CPU, which keep freed memory, against glibc's default, which returns it to the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.harness.measure import OURS, Comparison, Setting, interleave, run_in_process, seconds_of_pass
from benchmarks.layout import NETWORKS, forward, training
from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.models.build import build_backbone

DEFAULT = "glibc's default"
SETTINGS: dict[str, dict[str, str]] = {OURS: {}, DEFAULT: {"GLIBC_TUNABLES": ""}}  # a user's own settings win
WORKS = {"forward": forward, "training": training}


def run(setting: Setting) -> Iterator[Comparison]:
    """Each sample is a process of its own, since freed memory that is kept stays kept; its own clock measures."""
    least = setting.size(2, 0)
    for options, batch in NETWORKS[: setting.size(len(NETWORKS), 1)]:
        n = setting.size(batch, 2)
        for work in WORKS:
            contenders = {
                name: partial(run_in_process, _seconds, options, work, n, least, setting.threads, environment=variables)
                for name, variables in SETTINGS.items()
            }
            samples = interleave(contenders, setting.rounds, warm_up=False)
            case = f"{options.slug}, {work}, {n} images of {options.img_size}, {setting.threads} threads"
            yield Comparison(case, n, "images", samples, {DEFAULT: None})


def _seconds(options: BackboneOptions, work: str, n: int, least: int, threads: int) -> float:
    torch.set_num_threads(threads)
    network = build_backbone(options, include_top=False).to(memory_format=torch.channels_last)
    images = torch.rand(n, 3, options.img_size, options.img_size).contiguous(memory_format=torch.channels_last)
    step = WORKS[work](network, images, threads)
    step()
    return seconds_of_pass(step, least)
