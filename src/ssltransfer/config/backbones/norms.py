"""Batch norms of networks that were published in TensorFlow."""

from __future__ import annotations

from pydantic import Field

from ssltransfer.config.backbones.base import BackboneOptions


class BatchNormOptions(BackboneOptions):
    """Batch norms with eps 1e-3, whose statistics follow slowly."""

    norm_momentum: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Share of a batch in running statistics (TensorFlow's .99); more for short runs.",
    )
