"""The random network (Noroozi et al. 2018, section 5 (5)): a baseline without training."""

from ssltransfer.config.entities import Pretext
from ssltransfer.config.tasks import RandomNetwork
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import PretrainedModel
from ssltransfer.tasks.pretext.base import FIXED_MODELS, BuiltModel, ModelInputs
from ssltransfer.training.data_init import init_from_data


@FIXED_MODELS.register(RandomNetwork)
def random_network(spec: Pretext, inputs: ModelInputs) -> BuiltModel:
    """The backbone with its fully-connected layers at its initialization, or rescaled by images of the index.

    Raises:
        LayerError: the network cannot be rescaled.
    """
    backbone = build_backbone(spec.backbone, include_top=True, seed=spec.seed)
    assert isinstance(spec.task, RandomNetwork)
    if spec.task.data_dependent_init:
        assert inputs.index is not None
        init_from_data(PretrainedModel(backbone, "imagenet", "", "random"), inputs.index, inputs.devices, spec.seed)
    return BuiltModel(backbone, "imagenet")
