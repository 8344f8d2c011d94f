"""Regression of a teacher's pooled features and maps through a head."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.base import Spec
from ssltransfer.config.methods.distillation import Distillation
from ssltransfer.config.protocols.base import Pool

FeatureLoss = Literal["cosine", "l2", "smooth-l1", "cosine+smooth-l1"]


class FurtherTeacher(Spec):
    """One more teacher, with weights, layers and heads of its own."""

    teacher: str = Field(description="Name of the model.")
    teacher_layer: str | None = Field(None, description="Layer of its pooled feature; default: the last.")
    teacher_pool: Pool | None = Field(None, description="Pooling of this layer if it is a map.")
    teacher_map_layer: str | None = Field(None, description="Its map; default: its last map.")
    pooled_weight: float = Field(1.0, ge=0, description="Weight of its pooled term.")
    map_weight: float = Field(0.0, ge=0, description="Weight of its map term.")

    @model_validator(mode="after")
    def _terms(self) -> Self:
        _check_terms(self)
        return self


def _check_terms(options: "FurtherTeacher | FeatureDistillation") -> None:
    """Raise `ValueError` without a term, or for a layer of the teacher that no term reads."""
    if not options.pooled_weight and not options.map_weight:
        raise ValueError("give `pooled_weight` or `map_weight`; both are 0")
    for weight, keys in (("map_weight", ["teacher_map_layer"]), ("pooled_weight", ["teacher_layer", "teacher_pool"])):
        for key in keys:
            if not getattr(options, weight) and getattr(options, key) is not None:
                raise ValueError(f"`{key}` is not used with a `{weight}` of 0")


class FeatureDistillation(Distillation):
    """The student's pooled feature, its map or both match the teacher's, through a head that is not exported."""

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
    head: Literal["linear", "mlp", "none"] = Field(
        "mlp",
        description="From the student's features to the teacher's; none: the student's feature is the teacher's, "
        "with as many dimensions (`embed_dim` of the backbone). Its maps and further teachers have linear heads then.",
    )
    hidden_dim: int | None = Field(
        None, ge=1, description="Hidden units of the mlp; default: twice the student's dimensions."
    )
    teacher_normalization: Literal["none", "standardize", "whiten"] = Field(
        "none",
        description="By the statistics of the teacher's features over the dataset: the standard deviation of each "
        "dimension, or the covariance.",
    )
    further_teachers: tuple[FurtherTeacher, ...] = Field(
        (), description="More teachers, each with heads of its own; losses are added (AM-RADIO)."
    )

    @property
    def further(self) -> tuple[str, ...]:
        """Names of the further teachers."""
        return tuple(one.teacher for one in self.further_teachers)

    @model_validator(mode="after")
    def _terms(self) -> Self:
        _check_terms(self)
        for key, weight in (("map_layer", "map_weight"), ("map_loss", "map_weight"), ("layer", "pooled_weight")):
            used = any(getattr(one, weight) for one in (self, *self.further_teachers))
            if not used and getattr(self, key) is not None:
                raise ValueError(f"`{key}` is not used with a `{weight}` of 0")
        if self.map_weight and self.precompute_teacher:
            raise ValueError("maps cannot be precomputed; remove `precompute_teacher`")
        if self.further_teachers and self.precompute_teacher:
            raise ValueError("the features of several teachers cannot be precomputed; remove `precompute_teacher`")
        if self.hidden_dim and self.head != "mlp":
            raise ValueError("`hidden_dim` is not used without an mlp")
        if self.head == "none" and not self.pooled_weight:
            raise ValueError("without a head the student's pooled feature is the teacher's; give `pooled_weight`")
        if self.head == "none" and self.teacher_normalization != "none":
            raise ValueError(
                "without a head the teacher's features cannot be normalized; remove `teacher_normalization`"
            )
        return self
