"""Contrastive representation distillation."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.methods.distillation import Distillation


class Crd(Distillation):
    """CRD without labels: match the teacher's feature of the same image against those of others (contrastive)."""

    name: Literal["crd"] = "crd"
    reference = "Tian et al. 2020; Abbasi Koohpayegani et al. 2020, section 4; protocols 3.4"
    embed_dim: int = Field(128, ge=1, description="Dimension of the common space of student and teacher features.")
    num_negatives: int = Field(16_384, ge=1, description="Random other images for each image.")
    temperature: float = Field(0.07, gt=0)
    momentum: float = Field(0.5, ge=0, lt=1, description="Momentum of the memory banks.")
