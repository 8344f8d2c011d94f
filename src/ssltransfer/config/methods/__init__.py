"""Student methods: how a new network gets the knowledge, and their options. A file a family."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from ssltransfer.config.base import coerce_name
from ssltransfer.config.methods.base import MethodOptions
from ssltransfer.config.methods.distillation import AttentionTransfer as AttentionTransfer
from ssltransfer.config.methods.distillation import Compress as Compress
from ssltransfer.config.methods.distillation import Compress1q, Crd, Regression
from ssltransfer.config.methods.distillation import Compress2q as Compress2q
from ssltransfer.config.methods.distillation import Distillation as Distillation
from ssltransfer.config.methods.distillation import LayerDistillation as LayerDistillation
from ssltransfer.config.methods.distillation import LayerRegression as LayerRegression
from ssltransfer.config.methods.labels import ClusterClassification, Supervised

METHODS: tuple[type[MethodOptions], ...] = (
    ClusterClassification,
    Supervised,
    Compress1q,
    Compress2q,
    Regression,
    LayerRegression,
    AttentionTransfer,
    Crd,
)
AnyMethod = Annotated[
    ClusterClassification
    | Supervised
    | Compress1q
    | Compress2q
    | Regression
    | LayerRegression
    | AttentionTransfer
    | Crd,
    Field(discriminator="name"),
    BeforeValidator(coerce_name),
]
