"""Options of the evaluation protocols, one file per family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssltransfer.config.base import one_of, options_in
from ssltransfer.config.protocols.base import PATCHES as PATCHES
from ssltransfer.config.protocols.base import FeatureProtocol as FeatureProtocol
from ssltransfer.config.protocols.base import FineTuning as FineTuning
from ssltransfer.config.protocols.base import LabelSubset as LabelSubset
from ssltransfer.config.protocols.base import Pool as Pool
from ssltransfer.config.protocols.base import ProtocolOptions as ProtocolOptions
from ssltransfer.config.protocols.base import TrainedProtocol as TrainedProtocol
from ssltransfer.config.protocols.depth import Depth as Depth
from ssltransfer.config.protocols.detection import Detection as Detection
from ssltransfer.config.protocols.detection import FasterRcnn as FasterRcnn
from ssltransfer.config.protocols.detection import FastRcnn as FastRcnn
from ssltransfer.config.protocols.features import ClusterAlignment as ClusterAlignment
from ssltransfer.config.protocols.features import ClusterQuality as ClusterQuality
from ssltransfer.config.protocols.features import Knn as Knn
from ssltransfer.config.protocols.features import LogReg as LogReg
from ssltransfer.config.protocols.features import Retrieval as Retrieval
from ssltransfer.config.protocols.probes import FinetuneFromLayer as FinetuneFromLayer
from ssltransfer.config.protocols.probes import FrozenBlock3 as FrozenBlock3
from ssltransfer.config.protocols.probes import Linear as Linear
from ssltransfer.config.protocols.probes import LinearProbe as LinearProbe
from ssltransfer.config.protocols.probes import LinearProbePerLayer as LinearProbePerLayer
from ssltransfer.config.protocols.probes import MlpProbe as MlpProbe
from ssltransfer.config.protocols.probes import ProbeOptions as ProbeOptions
from ssltransfer.config.protocols.segmentation import Segmentation as Segmentation
from ssltransfer.config.protocols.voc import VocClassification as VocClassification

PROTOCOLS = options_in(__name__, ProtocolOptions)
if TYPE_CHECKING:
    AnyProtocol = ProtocolOptions
else:
    AnyProtocol = one_of(PROTOCOLS)
