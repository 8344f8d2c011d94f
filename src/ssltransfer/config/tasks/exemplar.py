"""Exemplars: a image is a class of its own."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ssltransfer.config.tasks.base import TaskOptions


class Exemplar(TaskOptions):
    """Exemplar: views of one image closer to each other than to views of others (triplet loss)."""

    name: Literal["exemplar"] = "exemplar"
    module: ClassVar[str] = "exemplar"
    min_images: ClassVar[int] = 2
    reference: ClassVar[str] = "Dosovitskiy et al. 2014; Kolesnikov et al. 2019; protocols 1.6a"
    num_views: int = Field(8, ge=2, description="Views of each image.")
    grayscale_prob: float = Field(0.66, ge=0, le=1, description="Share of images turned gray, all views alike.")
    min_scale: float = Field(0.05, gt=0, le=1, description="Least share of the image's area in a view.")
    embed_dim: int = Field(1000, ge=1, description="Numbers that each view becomes: the network's logits.")
    margin: float = Field(0.5, gt=0, description="By how much others must be farther (squared distance).")
    norm_axis: Literal["view", "batch"] = Field(
        "view", description="What has unit length: each view's embedding, or each number over the batch (the code)."
    )
