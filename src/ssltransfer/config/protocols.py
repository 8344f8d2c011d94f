"""Evaluation protocols: what is measured of a model, and their options."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from ssltransfer.config.base import Options, Spec, name_alone
from ssltransfer.config.schedule import Schedule


class Pool(Spec):
    """Adaptive pooling of a convolutional map to a square of this side; one of both."""

    max: int | None = Field(None, ge=1)
    avg: int | None = Field(None, ge=1)

    @property
    def slug(self) -> str:
        """max4, avg1, or whole."""
        return f"max{self.max}" if self.max else f"avg{self.avg}" if self.avg else "whole"


class ProtocolOptions(Options):
    """What all protocols share. `module` in stages/evaluate/ holds the protocol.

    `reads` says what a protocol works on: a model and pictures, or features that the features stage made; `trains`
    whether it looks at a training set at all.
    """

    module: ClassVar[str] = ""
    reads: ClassVar[Literal["model", "features"]] = "model"
    trains: ClassVar[bool] = True
    labels: ClassVar[Literal["one", "many"]] = "one"
    headline: ClassVar[str] = "accuracy"
    unit: ClassVar[str] = "%"


class LinearLayers(ProtocolOptions):
    """Linear classifier on each frozen convolutional layer, all layers in one pass."""

    name: Literal["linear-layers"] = "linear-layers"
    module: ClassVar[str] = "linear_layers"
    source: ClassVar[str] = "Zhang et al. 2016/2017; protocols 4.4"
    headline: ClassVar[str] = "best"
    layers: tuple[str, ...] | None = Field(None, description="Default: every convolutional layer of the trunk.")
    dims: int = Field(9600, ge=16, description="A map is resized until channels x side^2 is at most this.")
    resize: Literal["bilinear", "area", "max"] = "area"
    crops: Literal[1, 10] = Field(1, description="1: centre crop; 10: corners and centre, mirrored too.")
    schedule: Schedule = Schedule(
        steps=140_000, batch=256, lr=0.01, drop_every=40_000, bias_lr=2.0, norm_and_bias_decay=False
    )


class Labelled(Spec):
    """Which training pictures keep their labels, drawn for each seed; one of both."""

    share: float | None = Field(None, gt=0, lt=1, description="Of each class, rounded, one picture at least.")
    each: int | None = Field(None, ge=1, description="Pictures of each class; 1: one-shot.")

    @model_validator(mode="after")
    def _one(self) -> Labelled:
        if (self.share is None) == (self.each is None):
            raise ValueError("give one of share and each")
        return self


class FeatureProtocol(ProtocolOptions):
    """What protocols on cached features share: which layer, pooled how."""

    reads: ClassVar[Literal["model", "features"]] = "features"
    layer: str | None = Field(None, description="Default: the last layer that the model has.")
    pool: Pool | None = Field(None, description="Default: the whole map; for convolutional layers give avg: 1, say.")
    labelled: Labelled | None = Field(None, description="Few labels: which training pictures have one. Default: all.")


class Neighbours(FeatureProtocol):
    """Nearest neighbour by cosine on cached features (k = 1), or a vote of several."""

    name: Literal["neighbours"] = "neighbours"
    module: ClassVar[str] = "neighbours"
    source: ClassVar[str] = "Abbasi Koohpayegani et al. 2020; protocols 4.6"
    k: int = Field(1, ge=1, description="More than 1: majority vote, ties to the nearest.")
    temperature: float | None = Field(
        None, gt=0, description="A vote weighs exp(cosine / temperature) then; DINO: k 20, temperature 0.07."
    )


class ClusterAlignment(FeatureProtocol):
    """k-means on training features, clusters matched to classes by the Hungarian method."""

    name: Literal["cluster-alignment"] = "cluster-alignment"
    module: ClassVar[str] = "cluster_alignment"
    source: ClassVar[str] = "Abbasi Koohpayegani et al. 2020; protocols 4.6"
    k: int | None = Field(None, ge=2, description="Default: the number of classes (ImageNet: 1000).")
    iterations: int = Field(20, ge=1)


Penalty = Annotated[float, Field(ge=0)]


class Logistic(FeatureProtocol):
    """L2-regularised logistic regression by L-BFGS on cached features."""

    name: Literal["logistic"] = "logistic"
    module: ClassVar[str] = "logistic"
    version: ClassVar[int] = 2
    source: ClassVar[str] = "Kolesnikov et al. 2019; protocols 4.5"
    penalty: Penalty | Annotated[tuple[Penalty, ...], Field(min_length=1)] | None = Field(
        None,
        description="lambda of mean loss + lambda*||W||^2; default 100/(M*C). Of several the one is taken that names "
        "most of a held-out tenth of each class, and then fitted to all.",
    )
    iterations: int = Field(800, ge=1)
    standardise: bool = False


class Head(ProtocolOptions):
    """What classifiers share that are trained by gradient descent on one frozen layer, of augmented pictures."""

    module: ClassVar[str] = "heads"
    layer: str | None = Field(None, description="Default: the last layer that the model has.")
    pool: Pool | None = Field(None, description="Default: the whole map; for convolutional layers give avg: 1, say.")
    labelled: Labelled | None = Field(None, description="Few labels: which training pictures have one. Default: all.")
    unit_length: bool = Field(False, description="Divide each representation by its length.")
    standardise: bool = Field(
        False,
        description="Then subtract the mean and divide by the deviation over the training pictures' centre crops.",
    )
    augment: Literal["random-resized-crop", "random-crop"]
    mirror: bool
    hidden: int | None = Field(None, ge=1, description="Units of a hidden layer with ReLU; null: a linear classifier.")
    dropout: float = Field(0.0, ge=0, lt=1, description="After the hidden layer.")
    schedule: Schedule

    @model_validator(mode="after")
    def _hidden_drops(self) -> Head:
        if self.dropout and self.hidden is None:
            raise ValueError("dropout needs a hidden layer; give `hidden` too")
        return self


class Linear(Head):
    """Linear classifier on the representation, of unit length and standardised, by SGD (CompRess)."""

    name: Literal["linear"] = "linear"
    source: ClassVar[str] = "Abbasi Koohpayegani et al. 2020; protocols 4.6"
    unit_length: bool = True
    standardise: bool = True
    augment: Literal["random-resized-crop", "random-crop"] = "random-resized-crop"
    mirror: bool = True
    schedule: Schedule = Schedule(epochs=40, batch=256, lr=0.01, drops=(15, 30), weight_decay=1e-4)


class LinearSgd(Head):
    """Linear classifier on the representation by SGD (Kolesnikov et al. 2019, table 2 and figure 8)."""

    name: Literal["linear-sgd"] = "linear-sgd"
    source: ClassVar[str] = "Kolesnikov et al. 2019; protocols 4.5"
    augment: Literal["random-resized-crop", "random-crop"] = "random-crop"
    mirror: bool = False
    schedule: Schedule = Schedule(epochs=520, batch=2048, lr=0.8, drops=(480, 500), weight_decay=0.0)


class Mlp(Head):
    """Classifier with a hidden layer on the representation by SGD (Kolesnikov et al. 2019)."""

    name: Literal["mlp"] = "mlp"
    source: ClassVar[str] = "Kolesnikov et al. 2019; protocols 4.5"
    augment: Literal["random-resized-crop", "random-crop"] = "random-crop"
    mirror: bool = False
    hidden: int | None = 1000
    dropout: float = 0.5
    schedule: Schedule = Schedule(epochs=180, batch=512, lr=0.01, drops=(60, 120), weight_decay=0.0)


class Retrieval(FeatureProtocol):
    """Pictures of the same class among the nearest of the test set itself: recall at K."""

    name: Literal["retrieval"] = "retrieval"
    module: ClassVar[str] = "retrieval"
    source: ClassVar[str] = "Abbasi Koohpayegani et al. 2020; protocols 4.6"
    trains: ClassVar[bool] = False
    headline: ClassVar[str] = "r@1"
    labelled: None = None
    at: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 2, 4, 8), min_length=1, description="The values of K.")

    @model_validator(mode="after")
    def _has_headline(self) -> Retrieval:
        if 1 not in self.at:
            raise ValueError(f"at {list(self.at)} must hold 1, which is the headline")
        return self


class VocClassification(ProtocolOptions):
    """VOC07 classification by fine-tuning: mean average precision over 20 classes."""

    name: Literal["voc-classification"] = "voc-classification"
    module: ClassVar[str] = "voc_classification"
    source: ClassVar[str] = "Krähenbühl et al. 2016, voc-classification; protocols 4.1"
    labels: ClassVar[Literal["one", "many"]] = "many"
    headline: ClassVar[str] = "map"
    train: Literal["all", "fc6-8", "fc8"] = Field(
        "all", description="Which layers learn. all, fc6-8: fc6, fc7 and fc8 start afresh; fc8: it alone does."
    )
    scale: tuple[float, float] = Field(
        (0.5, 2.0), description="Side of the random crop in the original picture, in sides of the input."
    )
    crops: int = Field(10, ge=1, description="Random crops whose scores are summed at test time.")
    dropout: float = Field(0.5, ge=0, lt=1)
    loss_weight: float = Field(20.0, gt=0, description="Of the mean over classes: 20 is the sum over VOC's 20.")
    schedule: Schedule = Schedule(
        steps=80_000,
        batch=16,
        lr=0.001,
        bias_lr=2.0,
        factor=0.5,
        drop_every=10_000,
        weight_decay=1e-6,
        clip=10.0,
    )

    @model_validator(mode="after")
    def _ordered(self) -> VocClassification:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} must be two positive numbers, the smaller first")
        return self


PROTOCOLS: tuple[type[ProtocolOptions], ...] = (
    LinearLayers,
    Neighbours,
    ClusterAlignment,
    Logistic,
    Linear,
    LinearSgd,
    Mlp,
    Retrieval,
    VocClassification,
)
AnyProtocol = Annotated[
    LinearLayers | Neighbours | ClusterAlignment | Logistic | Linear | LinearSgd | Mlp | Retrieval | VocClassification,
    Field(discriminator="name"),
    BeforeValidator(name_alone),
]
