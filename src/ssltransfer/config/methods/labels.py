"""Methods that learn one label a image."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ssltransfer.config.methods.base import MethodOptions


class ClusterClassification(MethodOptions):
    """Cluster classification: a network from scratch learns the pseudo-labels of a clustering."""

    name: Literal["cluster-classification"] = "cluster-classification"
    module: ClassVar[str] = "cluster_classification"
    reference: ClassVar[str] = "Noroozi et al. 2018, section 3; protocols 3.2"
    cluster: str = Field(description="Name of the clustering whose labels are learned.")


class Supervised(MethodOptions):
    """Supervised control: the same recipe on the true labels."""

    name: Literal["supervised"] = "supervised"
    module: ClassVar[str] = "supervised"
    reference: ClassVar[str] = "Jia et al. 2014, bvlc_reference_caffenet; protocols 2.1"
    uses_ground_truth: ClassVar[bool] = True
