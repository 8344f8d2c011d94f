"""HOG words."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.tasks.base import TaskOptions


class Hog(TaskOptions):
    """Vocabulary of HOG descriptors by k-means, for bags of words."""

    name: Literal["hog"] = "hog"
    reference = "Noroozi et al. 2018 (CC+HOG); protocols 1.11"
    is_trainable = False
    is_network = False
    num_descriptors: int = Field(1_000_000, ge=1, description="Descriptors that k-means clusters.")
    max_iter: int = Field(20, ge=1, description="Iterations of k-means.")
