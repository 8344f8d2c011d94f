"""Student methods: how a new network gets the knowledge, and their options."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ssltransfer.config.base import Options, name_alone


class MethodOptions(Options):
    """What all methods share. `module` in stages/student/ holds the method."""

    module: ClassVar[str] = ""
    augment: Literal["warp-crop", "random-resized-crop", "crop"] = Field(
        "warp-crop", description="warp-crop: 256x256 warp, random crop, mirror (CaffeNet's recipe)."
    )
    dropout: float = Field(0.5, ge=0, lt=1)


class ClusterClassification(MethodOptions):
    """Cluster classification: a network from scratch learns the pseudo-labels of a clustering."""

    name: Literal["cluster-classification"] = "cluster-classification"
    module: ClassVar[str] = "cluster_classification"
    source: ClassVar[str] = "Noroozi et al. 2018, section 3; protocols 3.2"
    cluster: str = Field(description="Name of the clustering whose labels are learned.")


class Supervised(MethodOptions):
    """Supervised control: the same recipe on the true labels."""

    name: Literal["supervised"] = "supervised"
    module: ClassVar[str] = "supervised"
    source: ClassVar[str] = "Jia et al. 2014, bvlc_reference_caffenet; protocols 2.1"


METHODS: tuple[type[MethodOptions], ...] = (ClusterClassification, Supervised)
AnyMethod = Annotated[ClusterClassification | Supervised, Field(discriminator="name"), BeforeValidator(name_alone)]
