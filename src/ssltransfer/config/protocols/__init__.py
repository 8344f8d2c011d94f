"""Evaluation protocols: what is measured of a model, and their options. A file a family."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from ssltransfer.config.base import coerce_name
from ssltransfer.config.protocols.base import PATCHES as PATCHES
from ssltransfer.config.protocols.base import FeatureProtocol as FeatureProtocol
from ssltransfer.config.protocols.base import FineTuning as FineTuning
from ssltransfer.config.protocols.base import LabelSubset as LabelSubset
from ssltransfer.config.protocols.base import Pool as Pool
from ssltransfer.config.protocols.base import ProtocolOptions as ProtocolOptions
from ssltransfer.config.protocols.depth import Depth
from ssltransfer.config.protocols.detection import Detection as Detection
from ssltransfer.config.protocols.detection import FasterRcnn, FastRcnn
from ssltransfer.config.protocols.features import ClusterAlignment, Knn, LogReg, Retrieval
from ssltransfer.config.protocols.probes import (
    FinetuneFromLayer,
    FrozenBlock3,
    Linear,
    LinearProbe,
    LinearProbePerLayer,
    MlpProbe,
)
from ssltransfer.config.protocols.probes import ProbeOptions as ProbeOptions
from ssltransfer.config.protocols.segmentation import Segmentation
from ssltransfer.config.protocols.voc import VocClassification

PROTOCOLS: tuple[type[ProtocolOptions], ...] = (
    LinearProbePerLayer,
    FinetuneFromLayer,
    Knn,
    ClusterAlignment,
    LogReg,
    Linear,
    LinearProbe,
    MlpProbe,
    FrozenBlock3,
    Retrieval,
    VocClassification,
    FastRcnn,
    FasterRcnn,
    Segmentation,
    Depth,
)
AnyProtocol = Annotated[
    LinearProbePerLayer
    | FinetuneFromLayer
    | Knn
    | ClusterAlignment
    | LogReg
    | Linear
    | LinearProbe
    | MlpProbe
    | FrozenBlock3
    | Retrieval
    | VocClassification
    | FastRcnn
    | FasterRcnn
    | Segmentation
    | Depth,
    Field(discriminator="name"),
    BeforeValidator(coerce_name),
]
