"""Supervised training."""

from typing import Literal

from ssltransfer.config.methods.base import MethodOptions


class Supervised(MethodOptions):
    """Supervised baseline: the same recipe on the true labels."""

    name: Literal["supervised"] = "supervised"
    reference = "Jia et al. 2014, bvlc_reference_caffenet; protocols 2.1"
    uses_ground_truth = True
