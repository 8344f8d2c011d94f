"""The random network (Noroozi et al. 2018, section 5 (5)): what clusters say when nothing was learned."""

from __future__ import annotations

from pathlib import Path

from ssltransfer.artefacts.index import Index
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import RandomNetwork
from ssltransfer.models.build import build_trunk
from ssltransfer.models.weights import Model
from ssltransfer.stages.pretext.base import Made
from ssltransfer.training.devices import Devices
from ssltransfer.training.rescaling import rescale_by


def make(spec: Pretext, index: Index | None, devices: Devices, folder: Path) -> Made:
    """The trunk with its fully-connected layers, as it starts from the seed, or rescaled by pictures of the index.

    Raises:
        LayerError: the network cannot be rescaled.
    """
    trunk = build_trunk(spec.trunk, top=True, seed=spec.seed)
    assert isinstance(spec.task, RandomNetwork)
    if spec.task.rescale:
        assert index is not None
        rescale_by(Model(trunk, "imagenet", "", "random"), index, devices, spec.seed)
    return Made(trunk, "imagenet")
