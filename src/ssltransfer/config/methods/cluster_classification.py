"""Cluster classification."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.methods.base import MethodOptions


class ClusterClassification(MethodOptions):
    """Cluster classification: a network from scratch learns the pseudo-labels of a clustering."""

    name: Literal["cluster-classification"] = "cluster-classification"
    reference = "Noroozi et al. 2018, section 3; protocols 3.2"
    cluster: str = Field(description="Name of the clustering that gives the labels.")
