"""Options of backbones, one module per family. A new options class is registered automatically."""

from typing import TYPE_CHECKING

from ssltransfer.config.backbones.alexnets import AlexNet, AlexNetBN, AlexNetDeepCluster, CaffeNet
from ssltransfer.config.backbones.base import BackboneOptions
from ssltransfer.config.backbones.exported import Exported
from ssltransfer.config.backbones.hog_words import HogWords
from ssltransfer.config.backbones.libraries import Custom, Timm, Torchvision
from ssltransfer.config.backbones.mobilenets import MobileNetV2
from ssltransfer.config.backbones.resnets import ResNet18, ResNet50
from ssltransfer.config.backbones.resnets_v2 import ResNet50V2, ResNet101V2, ResNetV2
from ssltransfer.config.backbones.revnets import RevNet50
from ssltransfer.config.backbones.vggs import Vgg16, Vgg19BN
from ssltransfer.config.base import one_of, options_in

BACKBONES = options_in(__name__, BackboneOptions)
if TYPE_CHECKING:
    AnyBackbone = BackboneOptions
else:
    AnyBackbone = one_of(BACKBONES)

# fmt: off
__all__ = [
    "BACKBONES", "AlexNet", "AlexNetBN", "AlexNetDeepCluster", "AnyBackbone", "BackboneOptions", "CaffeNet", "Custom",
    "Exported", "HogWords", "MobileNetV2", "ResNet18", "ResNet50", "ResNet50V2", "ResNet101V2", "ResNetV2", "RevNet50",
    "Timm", "Torchvision", "Vgg16", "Vgg19BN",
]
