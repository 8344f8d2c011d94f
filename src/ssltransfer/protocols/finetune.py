"""Changes of a model before fine-tuning: fused batch norms and data-dependent initialization (protocols 4.1)."""

from ssltransfer.artifacts.index import Index
from ssltransfer.config.protocols import FineTuning
from ssltransfer.logs import logger
from ssltransfer.models.fuse_bn import fuse_conv_bn
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.training.data_init import init_from_data
from ssltransfer.training.devices import Devices


def prepare_for_finetuning(
    model: PretrainedModel, options: FineTuning, train: Index, devices: Devices, seed: int
) -> None:
    """Apply `fuse_bn` and `data_dependent_init` to the model's backbone, in place; errors as of `init_from_data`."""
    if options.fuse_bn:
        logger.info(f"{fuse_conv_bn(model.backbone)} batch norms fused into the convolutions before them")
    if options.data_dependent_init:
        init_from_data(model, train, devices, seed)
