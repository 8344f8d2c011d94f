"""Options of the student methods, one file per method. A new file is registered automatically."""

from typing import TYPE_CHECKING

from ssltransfer.config.base import one_of, options_in
from ssltransfer.config.methods.attention_transfer import AttentionTransfer as AttentionTransfer
from ssltransfer.config.methods.base import MethodOptions as MethodOptions
from ssltransfer.config.methods.cluster_classification import ClusterClassification as ClusterClassification
from ssltransfer.config.methods.compress import Compress as Compress
from ssltransfer.config.methods.compress import Compress1q as Compress1q
from ssltransfer.config.methods.compress import Compress2q as Compress2q
from ssltransfer.config.methods.compress import CompressBatch as CompressBatch
from ssltransfer.config.methods.crd import Crd as Crd
from ssltransfer.config.methods.distillation import ContrastWithOthers as ContrastWithOthers
from ssltransfer.config.methods.distillation import Distillation as Distillation
from ssltransfer.config.methods.distillation import LayerDistillation as LayerDistillation
from ssltransfer.config.methods.feature_distillation import FeatureDistillation as FeatureDistillation
from ssltransfer.config.methods.layer_regression import LayerRegression as LayerRegression
from ssltransfer.config.methods.regression import Regression as Regression
from ssltransfer.config.methods.supervised import Supervised as Supervised

METHODS = options_in(__name__, MethodOptions)
if TYPE_CHECKING:
    AnyMethod = MethodOptions
else:
    AnyMethod = one_of(METHODS)
