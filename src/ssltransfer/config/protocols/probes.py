"""Classifiers on frozen layers."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.protocols.base import (
    LABEL_SUBSET,
    LASSO,
    LAYER,
    PATCHES,
    POOL,
    LabelSubset,
    Pool,
    TrainedProtocol,
)
from ssltransfer.config.schedule import Schedule


class LinearProbePerLayer(TrainedProtocol):
    """Linear classifier on each frozen convolutional layer, trained together."""

    name: Literal["linear-probe-per-layer"] = "linear-probe-per-layer"
    reference = "Zhang et al. 2016/2017; protocols 4.4"
    primary_metric = "best"
    layers: tuple[str, ...] | None = Field(None, description="Default: every convolutional layer of the backbone.")
    max_features: int = Field(9600, ge=16, description="Maps are resized so that channels x side^2 is at most this.")
    resize: Literal["bilinear", "area", "max"] = "area"
    crops: Literal[1, 10] = Field(1, description="Test crops. 1: center; 10: corners and center, with flips.")
    crop_scores: Literal["softmax", "logits"] = Field("softmax", description="Averaged over the test crops.")
    schedule: Schedule = Schedule(
        steps=140_000, batch_size=256, lr=0.01, step_size=40_000, bias_lr_mult=2.0, decay_norm_and_bias=False
    )


class FinetuneFromLayer(TrainedProtocol):
    """Freeze the network up to each convolutional layer and train the rest from scratch with labels."""

    name: Literal["finetune-from-layer"] = "finetune-from-layer"
    reference = "Noroozi & Favaro 2016; Noroozi et al. 2018, table 6; protocols 4.4"
    finetunes = True
    primary_metric = "best"
    layers: tuple[str, ...] | None = Field(
        None, description="Last frozen layer of each training. Default: every convolutional map."
    )
    crops: Literal[1, 10] = Field(10, description="Test crops. 1: center; 10: corners and center, with flips.")
    crop_scores: Literal["softmax", "logits"] = Field("softmax", description="Averaged over the test crops.")
    dropout: float = Field(0.5, ge=0, lt=1, description="In fc6 and fc7.")
    schedule: Schedule = Schedule(
        steps=450_000, batch_size=256, lr=0.01, step_size=100_000, bias_lr_mult=2.0, decay_norm_and_bias=False
    )

    def num_trainings(self, backbone: BackboneOptions) -> int:
        """One per layer."""
        return len(self.layers or backbone.base_layers)


class ProbeOptions(TrainedProtocol):
    """Options of classifiers on one frozen layer, trained by gradient descent on augmented images."""

    version = 2  # patches are pooled before their mean is taken
    layer: str | None = Field(None, description=LAYER)
    pool: Pool | None = Field(None, description=POOL)
    patches: bool = Field(False, description=PATCHES)
    label_subset: LabelSubset | None = Field(
        None, description=LABEL_SUBSET + " `schedule.epochs` count passes over all images."
    )
    l2_normalize: bool = Field(False, description="l2-normalize the features.")
    standardize: bool = Field(
        False,
        description="Then standardize them with the statistics of the training images' center crops.",
    )
    augment: Literal["random-resized-crop", "random-crop"]
    hflip: bool
    color_jitter: bool = Field(False, description="Inception's distortion of brightness, contrast, saturation and hue.")
    output_stride: Literal[8, 16] | None = Field(None, description="For backbones with this option; null: as trained.")
    hidden_dim: int | None = Field(
        None, ge=1, description="Units of a hidden layer with ReLU; null: linear classifier."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="After the hidden layer.")
    vtab_l2: bool = Field(
        False,
        description="Instead of the schedule's weight decay, `logreg`'s penalty 100 / (M C) ||W||^2 for M dimensions "
        "and C classes, on all weights.",
    )

    @model_validator(mode="after")
    def _hidden_drops(self) -> Self:
        if self.dropout and self.hidden_dim is None:
            raise ValueError("dropout needs a hidden layer; set `hidden_dim` too")
        return self

    def forward_passes(self, backbone: BackboneOptions) -> tuple[float, float]:
        """One, or one per patch."""
        return (9.0 if self.patches else 1.0,) * 2


class Linear(ProbeOptions):
    """Linear classifier on l2-normalized and standardized features, by SGD (CompRess)."""

    name: Literal["linear"] = "linear"
    reference = "Abbasi Koohpayegani et al. 2020; protocols 4.6"
    l2_normalize: bool = True
    standardize: bool = True
    augment: Literal["random-resized-crop", "random-crop"] = "random-resized-crop"
    hflip: bool = True
    schedule: Schedule = Schedule(epochs=40, batch_size=256, lr=0.01, milestones=(15, 30), weight_decay=1e-4)


class LinearProbe(ProbeOptions):
    """Linear classifier on the features, by SGD (Kolesnikov et al. 2019, table 2 and figure 8)."""

    name: Literal["linear-probe"] = "linear-probe"
    reference = "Kolesnikov et al. 2019; protocols 4.5"
    augment: Literal["random-resized-crop", "random-crop"] = "random-crop"
    hflip: bool = False
    schedule: Schedule = Schedule(epochs=520, batch_size=2048, lr=0.8, milestones=(480, 500), weight_decay=0.0)


class MlpProbe(ProbeOptions):
    """Classifier with a hidden layer on the features, by SGD (Kolesnikov et al. 2019)."""

    name: Literal["mlp-probe"] = "mlp-probe"
    reference = "Kolesnikov et al. 2019; protocols 4.5"
    augment: Literal["random-resized-crop", "random-crop"] = "random-crop"
    hflip: bool = False
    hidden_dim: int | None = 1000
    dropout: float = 0.5
    vtab_l2: bool = True
    schedule: Schedule = Schedule(epochs=180, batch_size=512, lr=0.01, milestones=(60, 120), weight_decay=0.0)


class FrozenBlock3(ProbeOptions):
    """Linear classifier on block3, max-pooled to 3x3, by RMSProp (Doersch & Zisserman 2017): recall at 5."""

    name: Literal["frozen-block3"] = "frozen-block3"
    reference = "Doersch & Zisserman 2017; protocols 4.7"
    primary_metric = "top5"
    layer: str | None = Field(
        "block3", description="For other backbones name another layer, such as conv5; null: the last."
    )
    pool: Pool | None = Pool(max=3)
    augment: Literal["random-resized-crop", "random-crop"] = "random-crop"
    hflip: bool = False
    color_jitter: bool = True
    l1_layer_mix: float | None = Field(None, ge=0, description=LASSO)
    output_stride: Literal[8, 16] | None = 16
    schedule: Schedule = Schedule(
        epochs=20, batch_size=256, optimizer="rmsprop", lr=0.01, step_size=2, gamma=0.94, weight_decay=4e-5
    )
