"""Regression of a teacher's pooled features and maps through a head."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.methods.distillation import Distillation

FeatureLoss = Literal["cosine", "l2", "smooth-l1", "cosine+smooth-l1"]


class FeatureDistillation(Distillation):
    """The student's pooled feature, its map or both match the teacher's through a head that is not exported."""

    name: Literal["feature-distillation"] = "feature-distillation"
    reference = "Navaneet et al. 2021 (SimReg); Ranzinger et al. 2024 (AM-RADIO), section 3; protocols 3.5"
    pooled_weight: float = Field(1.0, ge=0, description="Weight of the pooled term, of `layer` and `teacher_layer`.")
    map_weight: float = Field(0.0, ge=0, description="Weight of the map term, of `map_layer` and `teacher_map_layer`.")
    map_layer: str | None = Field(None, description="Map of the student; default: its last map.")
    teacher_map_layer: str | None = Field(None, description="Map of the teacher; default: its last map.")
    loss: FeatureLoss = Field(
        "cosine", description="Distance of features; cosine+smooth-l1 is AM-RADIO's sum, 0.9 and 0.1 of them."
    )
    map_loss: FeatureLoss | None = Field(None, description="Distance at each location of the map; default: as `loss`.")
    head: Literal["linear", "mlp"] = Field("mlp", description="From the student's features to the teacher's.")
    hidden_dim: int | None = Field(
        None, ge=1, description="Hidden units of the mlp; default: twice the student's dimensions."
    )
    teacher_normalization: Literal["none", "standardize", "whiten"] = Field(
        "none",
        description="By the statistics of the teacher's features over the dataset: the standard deviation of each "
        "dimension, or the covariance.",
    )

    @model_validator(mode="after")
    def _terms(self) -> Self:
        if not self.pooled_weight and not self.map_weight:
            raise ValueError("give `pooled_weight` or `map_weight`; both are 0")
        unused = {
            "map_weight": ("map_layer", "teacher_map_layer", "map_loss"),
            "pooled_weight": ("layer", "teacher_layer", "teacher_pool"),
        }
        for weight, keys in unused.items():
            for key in keys:
                if not getattr(self, weight) and getattr(self, key) is not None:
                    raise ValueError(f"`{key}` is not used with a `{weight}` of 0")
        if self.map_weight and self.precompute_teacher:
            raise ValueError("maps cannot be precomputed; remove `precompute_teacher`")
        if self.hidden_dim and self.head == "linear":
            raise ValueError("`hidden_dim` is not used by a linear head")
        return self
