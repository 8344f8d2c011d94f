"""Changes of a model before fine-tuning: fused batch norms and data-dependent initialization (protocols 4.1)."""

from __future__ import annotations

from ssltransfer.artifacts.index import Index
from ssltransfer.config.protocols import FineTuning
from ssltransfer.logs import logger
from ssltransfer.models.fuse_bn import fuse_conv_bn
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.training.data_init import init_from_data
from ssltransfer.training.devices import Devices


def prepare_for_finetuning(
    model: PretrainedModel, options: FineTuning, index: Index, devices: Devices, seed: int
) -> PretrainedModel:
    """Apply `fuse_bn` and `data_dependent_init` to the model's backbone, in place.

    Arguments and errors are those of `init_from_data`; index: the training images.
    """
    if options.fuse_bn:
        logger.info(f"{fuse_conv_bn(model.backbone)} batch norms fused into the convolutions before them")
    if options.data_dependent_init:
        init_from_data(model, index, devices, seed)
    return model
