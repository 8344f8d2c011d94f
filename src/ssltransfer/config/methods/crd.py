"""Contrastive representation distillation."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.methods.distillation import ContrastWithOthers


class Crd(ContrastWithOthers):
    """CRD without labels: match the teacher's feature of the same image against those of others (contrastive)."""

    name: Literal["crd"] = "crd"
    reference = "Tian et al. 2020; Abbasi Koohpayegani et al. 2020, section 4; protocols 3.4"
    embed_dim: int = Field(128, ge=1, description="Dimension of the common space of student and teacher features.")
    others_key = "num_negatives"
    max_others = 16_384
    num_negatives: int | None = Field(
        None, ge=1, description="Random other images for each image; default: a tenth of the images, at most 16,384."
    )
    temperature: float = Field(0.07, gt=0)
    momentum: float = Field(0.5, ge=0, lt=1, description="Momentum of the memory banks.")
