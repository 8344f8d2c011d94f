"""A network from elsewhere: a state dict in torchvision's names becomes a model like any other."""

from __future__ import annotations

from pathlib import Path

from ssltransfer.artefacts.files import digest_of
from ssltransfer.artefacts.index import Index
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import Imported
from ssltransfer.models.build import build_trunk
from ssltransfer.models.weights import load_tensors, read_tensors
from ssltransfer.stages.pretext.base import Made
from ssltransfer.training.devices import Devices


def make(spec: Pretext, index: Index | None, devices: Devices, folder: Path) -> Made:
    """The trunk filled from the file: with its fully-connected layers, if the file has any of them.

    A file of convolutions alone (a checkpoint from which a head was cut) gives a model whose fully-connected layers
    cannot be asked for; a line says so.

    Raises:
        ArtefactError: no such file, not only tensors, or a tensor that is missing or has another shape.
    """
    assert isinstance(spec.task, Imported)
    file = spec.task.file.expanduser()
    tensors = read_tensors(file)
    trunk = build_trunk(spec.trunk, top=True)
    convolutions = build_trunk(spec.trunk, top=False)
    full = set(trunk.state_dict()) - set(convolutions.state_dict())
    if full and not any(name == key or name.endswith("." + key) for name in tensors for key in full):
        trunk = convolutions
        print(f"{file}: holds no fully-connected layers; the layers are {', '.join(trunk.layers)}.", flush=True)
    matched = load_tensors(trunk, tensors, file, prefix=spec.task.prefix, fresh=spec.task.fresh)
    print(f"{file}: {matched}", flush=True)
    return Made(trunk, spec.task.normalise, {"file": digest_of(file), "matched": matched})
