"""Evaluation protocols: what is measured of a model, and their options. A file a family."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from ssltransfer.config.base import name_alone
from ssltransfer.config.protocols.base import FeatureProtocol as FeatureProtocol
from ssltransfer.config.protocols.base import Labelled as Labelled
from ssltransfer.config.protocols.base import Pool as Pool
from ssltransfer.config.protocols.base import ProtocolOptions
from ssltransfer.config.protocols.depth import Depth
from ssltransfer.config.protocols.features import ClusterAlignment, Logistic, Neighbours, Retrieval
from ssltransfer.config.protocols.probes import FrozenBlock3, Linear, LinearLayers, LinearSgd, Mlp
from ssltransfer.config.protocols.probes import Head as Head
from ssltransfer.config.protocols.voc import VocClassification

PROTOCOLS: tuple[type[ProtocolOptions], ...] = (
    LinearLayers,
    Neighbours,
    ClusterAlignment,
    Logistic,
    Linear,
    LinearSgd,
    Mlp,
    FrozenBlock3,
    Retrieval,
    VocClassification,
    Depth,
)
AnyProtocol = Annotated[
    LinearLayers
    | Neighbours
    | ClusterAlignment
    | Logistic
    | Linear
    | LinearSgd
    | Mlp
    | FrozenBlock3
    | Retrieval
    | VocClassification
    | Depth,
    Field(discriminator="name"),
    BeforeValidator(name_alone),
]
