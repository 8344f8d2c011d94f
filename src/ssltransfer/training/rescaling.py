"""Data-dependent rescaling of a model by pictures of a data set (Krähenbühl et al. 2016; protocols 4.1)."""

from __future__ import annotations

import torch

from ssltransfer.artefacts.index import Index
from ssltransfer.data.batches import load_batches, sequential_keys
from ssltransfer.data.draws import seed_of
from ssltransfer.models.normalise import normalise
from ssltransfer.models.rescale import rescale
from ssltransfer.models.weights import Model
from ssltransfer.training.devices import Devices

PICTURES, BATCH = 160, 16  # magic_init's ten batches of sixteen


def rescale_by(model: Model, index: Index, devices: Devices, seed: int) -> None:
    """Rescale the trunk in place; it ends on the CPU.

    Args:
        model: with all layers that will be trained, fresh ones too.
        index: pictures, of which some are drawn; seen as for features, at the trunk's own size.
        devices: where it is computed; several processes end with the weights of the first.
        seed: of the draw.

    Raises:
        LayerError: the network cannot be rescaled.
    """
    trunk = model.trunk.to(devices.device)
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(seed_of(seed, "rescale")))
    ids = sorted(order[:PICTURES].tolist())
    batches = [
        normalise(batch.pictures.to(devices.device), model.rule)
        for batch in load_batches(index, model.view, sequential_keys(ids, BATCH), seed=seed, workers=devices.workers)
    ]
    rescale(trunk, batches, seed=seed_of(seed, "rescale"))
    devices.as_the_first(trunk)
    trunk.cpu()
    print(f"layers rescaled by {len(ids)} pictures", flush=True)
