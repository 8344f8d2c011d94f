"""Backbones: which networks there are, and what may be said of them. A file a family."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from ssltransfer.config.backbones.alexnets import AlexNet, AlexNetBN, AlexNetDeepCluster, CaffeNet
from ssltransfer.config.backbones.base import BackboneOptions
from ssltransfer.config.backbones.libraries import Timm, Torchvision
from ssltransfer.config.backbones.residual import MobileNetV2, ResNet18, ResNet50, ResNet50V2, ResNet101V2, RevNet50
from ssltransfer.config.backbones.residual import ResNetV2 as ResNetV2
from ssltransfer.config.backbones.vggs import Vgg16, Vgg19BN
from ssltransfer.config.backbones.words import HogWords
from ssltransfer.config.base import coerce_name

BACKBONES: tuple[type[BackboneOptions], ...] = (
    *(CaffeNet, AlexNet, AlexNetBN, AlexNetDeepCluster),
    *(Vgg16, Vgg19BN),
    *(ResNet18, ResNet50, ResNet50V2, ResNet101V2, RevNet50, MobileNetV2),
    *(Torchvision, Timm),
    HogWords,
)
AnyBackbone = Annotated[
    CaffeNet
    | AlexNet
    | AlexNetBN
    | AlexNetDeepCluster
    | Vgg16
    | Vgg19BN
    | ResNet18
    | ResNet50
    | ResNet50V2
    | ResNet101V2
    | RevNet50
    | MobileNetV2
    | Torchvision
    | Timm
    | HogWords,
    Field(discriminator="name"),
    BeforeValidator(coerce_name),
]
