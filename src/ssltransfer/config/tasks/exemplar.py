"""Exemplar: every image is a class of its own."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.base import Normalize
from ssltransfer.config.tasks.base import ForwardPasses, TaskOptions


class Exemplar(TaskOptions):
    """Exemplar: views of one image closer to each other than to views of others (triplet loss)."""

    name: Literal["exemplar"] = "exemplar"
    reference = "Dosovitskiy et al. 2014; Kolesnikov et al. 2019; protocols 1.6a"
    min_images = 2
    num_views: int = Field(8, ge=2, description="Views of each image.")
    grayscale_prob: float = Field(0.66, ge=0, le=1, description="Probability that all views of an image are gray.")
    min_scale: float = Field(0.05, gt=0, le=1, description="Smallest fraction of the image area in a view.")
    embed_dim: int = Field(1000, ge=1, description="Dimension of the embedding: the logits of the network.")
    margin: float = Field(0.5, gt=0, description="Margin of the triplet loss, in squared distance.")
    norm_axis: Literal["view", "batch"] = Field(
        "view", description="L2 normalization of each view's embedding, or of each dimension over the batch (the code)."
    )

    @property
    def normalization(self) -> Normalize:
        """Normalization of the inputs of this task."""
        return "per-image"

    def forward_passes(self, backbone: BackboneOptions) -> ForwardPasses:
        """One for each view."""
        return ForwardPasses(self.num_views, backbone, backbone.img_size)
