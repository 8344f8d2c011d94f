"""What is done to a model before it is fine-tuned: batch norms folded in, layers rescaled (protocols 4.1)."""

from __future__ import annotations

from ssltransfer.artifacts.index import Index
from ssltransfer.config.protocols import FineTuning
from ssltransfer.models.fuse_bn import absorb_norms
from ssltransfer.models.weights import Model
from ssltransfer.training.data_init import rescale_by
from ssltransfer.training.devices import Devices


def prepare_for_finetuning(model: Model, options: FineTuning, index: Index, devices: Devices, seed: int) -> Model:
    """The model as `absorb_bn` and `rescale` want it; its backbone is changed in place.

    Arguments and errors are those of `rescale_by`; index: the training images.
    """
    if options.absorb_bn:
        print(f"{absorb_norms(model.backbone)} batch norms folded into the convolutions before them", flush=True)
    if options.rescale:
        rescale_by(model, index, devices, seed)
    return model
