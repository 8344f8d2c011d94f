"""A network from elsewhere: a state dict becomes a model like any other."""

from __future__ import annotations

from pathlib import Path

from ssltransfer.artefacts.files import ArtefactError, digest_of
from ssltransfer.artefacts.index import Index
from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import Imported
from ssltransfer.models.build import build_trunk
from ssltransfer.models.layouts import endings, renamed
from ssltransfer.models.state_dicts import load_tensors, read_tensors
from ssltransfer.models.weights import prove_same, said_of
from ssltransfer.stages.pretext.base import Made
from ssltransfer.training.devices import Devices


def make(spec: Pretext, index: Index | None, devices: Devices, folder: Path) -> Made:
    """The trunk filled from the file: with its fully-connected layers, if the file has any of them.

    A file of convolutions alone (a checkpoint from which a head was cut) gives a model whose fully-connected layers
    cannot be asked for; a line says so. A file that this package wrote says its own normalisation, and is proved.

    Raises:
        ArtefactError: no such file, not only tensors, a tensor that is missing or has another shape, or another
            normalisation than the file's own.
    """
    assert isinstance(spec.task, Imported)
    task, file = spec.task, spec.task.file.expanduser()
    trunk = build_trunk(spec.trunk, top=True)
    tensors = renamed(read_tensors(file), trunk.state_dict())
    convolutions = build_trunk(spec.trunk, top=False)
    full = set(trunk.state_dict()) - set(convolutions.state_dict())
    if full and not full & endings(tensors):
        trunk = convolutions
        print(f"{file}: holds no fully-connected layers; the layers are {', '.join(trunk.layers)}.", flush=True)
    matched = load_tensors(trunk, tensors, file, prefix=task.prefix, fresh=task.fresh)
    print(f"{file}: {matched}", flush=True)
    about = said_of(file)
    if about is None:
        return Made(trunk, task.normalise or "imagenet", {"file": digest_of(file), "matched": matched})
    if task.normalise not in (None, about["normalise"]):
        raise ArtefactError(
            f"{file}: learned from pictures normalised by `{about['normalise']}`, not `{task.normalise}`; leave "
            "`normalise` of the task out."
        )
    prove_same(trunk, about, file)
    return Made(trunk, about["normalise"], {"file": digest_of(file), "matched": matched})
