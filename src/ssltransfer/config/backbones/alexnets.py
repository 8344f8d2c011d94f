"""AlexNets: four different networks under one name in the literature."""

from typing import ClassVar, Literal

from pydantic import Field

from ssltransfer.config.backbones.base import BackboneOptions


class AlexNetOptions(BackboneOptions):
    """Options of all AlexNets: five convolutions and two fully-connected layers.

    Attributes:
        channels: of the convolutions.
        stem_padding: of the first convolution.
        ceil_mode: of the poolings, which have a kernel of 3 and a stride of 2.
    """

    channels: ClassVar[tuple[int, ...]] = (64, 192, 384, 256, 256)
    base_layers = ("conv1", "conv2", "conv3", "conv4", "conv5")
    top_layers = ("fc6", "fc7")
    patch_overrides = {"stem_stride": 2}
    pool5_kernel = 3
    is_feed_forward = True
    caffe_padding = True
    stem_padding: ClassVar[int] = 2
    ceil_mode: ClassVar[bool] = False

    def accepts(self, size: int, layer: str) -> bool:
        """Whether a square input of `size` pixels is large enough for this layer."""
        return self.side(size, {"conv1": 0, "conv2": 1, "fc6": 3, "fc7": 3}.get(layer, 2)) >= 1

    def side(self, size: int, poolings: int) -> int:
        """Side of the map after some poolings, 6 after all three for CaffeNet and 227; below 1: no map."""
        side = (size + 2 * self.stem_padding - 11) // (self.stem_stride or 4) + 1
        for _ in range(poolings):
            side = (side - 3 + self.ceil_mode) // 2 + 1
        return side


class CaffeNet(AlexNetOptions):
    """CaffeNet: AlexNet with groups, LRN after pooling, ceil-mode pooling (Noroozi's AlexNet)."""

    name: Literal["caffenet"] = "caffenet"
    reference = "Jia et al. 2014, bvlc_reference_caffenet; Noroozi et al. 2018"
    channels = (96, 256, 384, 384, 256)
    stem_padding = 0
    ceil_mode = True
    crop_pct = 227 / 256
    dropout_before_classifier = True
    img_size: int = Field(227, ge=16, le=2048)
    bn: bool = Field(
        False, description="Batch normalization instead of LRN: not as in the papers, but learns in minutes."
    )


class AlexNet(AlexNetOptions):
    """torchvision's AlexNet: no groups, no LRN (CompRess's AlexNet)."""

    name: Literal["alexnet"] = "alexnet"
    reference = "Krizhevsky 2014; torchvision.models.alexnet"


class AlexNetBN(AlexNetOptions):
    """RotNet's AlexNet: torchvision's channels, batch normalization after every layer, no dropout."""

    name: Literal["alexnet-bn"] = "alexnet-bn"
    reference = "Gidaris et al. 2018, FeatureLearningRotNet; protocols 2.1c"
    always_bn = True


class AlexNetDeepCluster(AlexNetOptions):
    """DeepCluster's AlexNet: the original's channels without groups, batch normalization in the convolutions."""

    name: Literal["alexnet-deepcluster"] = "alexnet-deepcluster"
    reference = "Caron et al. 2018, facebookresearch/deepcluster; protocols 2.1d"
    channels = (96, 256, 384, 384, 256)
    sobel: bool = Field(False, description="Input: the two Sobel gradients of the gray image instead of its colors.")
    always_bn = True
