"""Regression of features."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.methods.distillation import Distillation


class Regression(Distillation):
    """Regression of the teacher's features; `bn` standardizes both sides by the batch first (Reg-BN)."""

    name: Literal["regression"] = "regression"
    reference = "Abbasi Koohpayegani et al. 2020, section 4; protocols 3.4"
    bn: bool = Field(False, description="Batch normalization without parameters on both sides: Reg-BN.")
    divide_by_variance: bool = Field(
        True,
        description="Without bn: divide the error by the variance of the teacher's features, so that the usual "
        "learning rates suit features of any scale; false: the paper's loss.",
    )
