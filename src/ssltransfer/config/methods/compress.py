"""CompRess."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.methods.distillation import ContrastWithOthers, Distillation


class Compress(ContrastWithOthers):
    """Options of both variants of CompRess."""

    reference = "Abbasi Koohpayegani et al. 2020, section 3; protocols 3.3"
    others_key = "queue_size"
    max_others = 128_000
    queue_size: int | None = Field(
        None,
        ge=2,
        description="Past features that each image is compared with; default: a tenth of the images, at most 128,000.",
    )
    temperature: float = Field(0.04, gt=0, description="Temperature of both softmaxes (0.07 for a SwAV teacher).")
    student_temperature: float | None = Field(
        None,
        gt=0,
        description="Temperature of the student alone; default: `temperature` (SEED: 0.2, and 0.01 of the teacher).",
    )


class Compress1q(Compress):
    """CompRess-1q: the student's similarities to the teacher's past features match the teacher's own."""

    name: Literal["compress-1q"] = "compress-1q"
    include_self: bool = Field(
        False, description="Compare with the teacher's feature of the image itself too, before the queue (SEED)."
    )


class Compress2q(Compress):
    """CompRess-2q: the student has its own queue, of past features of its momentum encoder."""

    name: Literal["compress-2q"] = "compress-2q"
    has_momentum_encoder = True
    momentum: float = Field(0.999, ge=0, lt=1, description="Momentum of the momentum encoder (0: a copy).")
    projection_dim: int | None = Field(
        None, ge=1, description="Width of a linear layer on the student's features (R50x4: 8192)."
    )


class CompressBatch(Distillation):
    """CompRess without queue, softmax and temperature: similarities within a batch match the teacher's."""

    name: Literal["compress-batch"] = "compress-batch"
    reference = "Abbasi Koohpayegani et al. 2020, table 1; protocols 3.3"
