"""What is done to a model before it is fine-tuned: batch norms folded in, layers rescaled (protocols 4.1)."""

from __future__ import annotations

import torch
import torch.distributed as dist

from ssltransfer.artefacts.index import Index
from ssltransfer.config.protocols import FineTuning
from ssltransfer.data.batches import load_batches, sequential_keys
from ssltransfer.data.draws import seed_of
from ssltransfer.models.absorb import absorb_norms
from ssltransfer.models.normalise import normalise
from ssltransfer.models.rescale import rescale
from ssltransfer.models.weights import Model
from ssltransfer.training.devices import Devices

PICTURES, BATCH = 160, 16  # magic_init's ten batches of sixteen


def prepared(model: Model, options: FineTuning, index: Index, devices: Devices, seed: int) -> Model:
    """The model as `absorb_bn` and `rescale` want it; its trunk is changed in place.

    Args:
        model: with all layers that will be fine-tuned, fresh ones too.
        options: of the protocol.
        index: training pictures, of which some are drawn; seen as for features, at the trunk's own size.
        devices: where it is computed; several processes end with the weights of the first.
        seed: of the draw.

    Raises:
        LayerError: the network cannot be rescaled.
    """
    trunk = model.trunk
    if options.absorb_bn:
        print(f"{absorb_norms(trunk)} batch norms folded into the convolutions before them", flush=True)
    if options.rescale:
        trunk.to(devices.device)
        order = torch.randperm(len(index), generator=torch.Generator().manual_seed(seed_of(seed, "rescale")))
        ids = sorted(order[:PICTURES].tolist())
        keys = sequential_keys(ids, BATCH)
        batches = [
            normalise(batch.pictures.to(devices.device), model.rule)
            for batch in load_batches(index, model.view, keys, seed=seed, workers=devices.workers)
        ]
        rescale(trunk, batches, seed=seed_of(seed, "rescale"))
        if devices.world > 1:
            for value in trunk.state_dict().values():
                dist.broadcast(value, 0)
        trunk.cpu()
        print(f"layers rescaled by {len(ids)} training pictures", flush=True)
    return model
