"""The random network (Noroozi et al. 2018, section 5 (5)): what clusters say when nothing was learned."""

from __future__ import annotations

from pathlib import Path

from ssltransfer.artefacts.index import Index
from ssltransfer.config.entities import Pretext
from ssltransfer.models.build import build_trunk
from ssltransfer.stages.pretext.base import Made
from ssltransfer.training.devices import Devices


def make(spec: Pretext, index: Index | None, devices: Devices, folder: Path) -> Made:
    """The trunk with its fully-connected layers, as it starts from the seed."""
    return Made(build_trunk(spec.trunk, top=True, seed=spec.seed), "imagenet")
