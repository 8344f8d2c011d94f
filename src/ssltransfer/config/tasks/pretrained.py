"""Published weights of timm and torchvision, by name."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.backbones import BackboneOptions, Timm, Torchvision
from ssltransfer.config.tasks.base import ForeignWeights


class Pretrained(ForeignWeights):
    """Published weights of timm or torchvision, by name; downloaded once, into the library's cache."""

    name: Literal["pretrained"] = "pretrained"
    reference = "timm.list_pretrained, torchvision.models.get_model_weights; protocols 2.8"
    weights: str | None = Field(
        None,
        pattern=r"^(timm|torchvision)/[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)?$",
        description="timm/MODEL.TAG or torchvision/MODEL.TAG, such as torchvision/resnet50.IMAGENET1K_V2; without TAG "
        "the library's default. null: those of the `model` of the backbone.",
    )

    def weights_for(self, backbone: BackboneOptions) -> str:
        """The name of the weights for a backbone.

        Raises:
            ValueError: neither the task nor the backbone names them.
        """
        if self.weights is None and not isinstance(backbone, Timm | Torchvision):
            raise ValueError(f"set `weights` of the task: the backbone {backbone.name} does not name any")
        return self.weights or f"{backbone.name}/{getattr(backbone, 'model', '')}"
