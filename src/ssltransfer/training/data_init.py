"""Data-dependent initialization of a model (Krähenbühl et al. 2016; protocols 4.1)."""

from __future__ import annotations

import torch

from ssltransfer.artifacts.index import Index
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.data.rng import seed_of
from ssltransfer.logs import logger
from ssltransfer.models.data_init import rescale
from ssltransfer.models.normalize import normalize
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.training.devices import Devices

IMAGES, BATCH = 160, 16  # magic_init's ten batches of sixteen


def init_from_data(model: PretrainedModel, index: Index, devices: Devices, seed: int) -> None:
    """Rescale the layers of the backbone in place. It ends on the CPU.

    Args:
        model: with all layers that will be trained, new ones too.
        index: images, of which a random subset is used, with the model's evaluation view.
        devices: of this process; all processes end with the weights of the first.
        seed: of the subset.

    Raises:
        LayerError: the network cannot be rescaled.
    """
    backbone = model.backbone.to(devices.device)
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(seed_of(seed, "rescale")))
    ids = sorted(order[:IMAGES].tolist())
    batches = [
        normalize(batch.images.to(devices.device), model.normalization)
        for batch in load_batches(index, model.view, sequential_keys(ids, BATCH), seed=seed, workers=devices.workers)
    ]
    rescale(backbone, batches, seed=seed_of(seed, "rescale"))
    devices.broadcast(backbone)
    backbone.cpu()
    logger.info(f"layers rescaled by {len(ids)} images")
