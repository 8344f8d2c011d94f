"""VGG networks."""

from typing import Literal

from pydantic import Field

from ssltransfer.config.backbones.base import BackboneOptions, BatchNormOptions


class Vgg16(BackboneOptions):
    """VGG16, with or without batch normalization; DeepCluster's with `sobel`."""

    name: Literal["vgg16"] = "vgg16"
    reference = "Simonyan & Zisserman 2015; torchvision.models.vgg16(_bn)"
    bn: bool = True
    sobel: bool = Field(False, description="Input: the two Sobel gradients of the gray image instead of its colors.")
    base_layers = (
        *("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3"),
        *("conv4_1", "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3"),
    )
    top_layers = ("fc6", "fc7")
    pool5_kernel = 2
    is_feed_forward = True
    dropout_before_classifier = True

    def accepts(self, size: int, layer: str) -> bool:
        """Whether a square input of `size` pixels is large enough for this layer."""
        poolings = 5 if layer in self.top_layers else int(layer[4]) - 1
        return _side(size, self.stem_stride) >> poolings >= 1


class Vgg19BN(BatchNormOptions):
    """Kolesnikov's VGG19: batch normalization after every layer, no biases, no dropout; ends with fc7."""

    name: Literal["vgg19-bn"] = "vgg19-bn"
    reference = "Kolesnikov et al. 2019, revisiting-self-supervised; protocols 2.2b"
    # fc6 reads a map of img_size / 32 a side, at least one pixel.
    img_size: int = Field(224, ge=32, le=2048)
    base_layers = ("conv1", "block1", "block2", "block3", "block4", "fc6", "fc7")
    flat_layers = ("fc6", "fc7")

    def accepts(self, size: int, layer: str) -> bool:
        """Whether a square input of `size` pixels is large enough for this layer; fc6 and fc7 need `fc6_side`."""
        if layer in self.flat_layers:
            return _side(size, self.stem_stride) // 32 == self.fc6_side >= 1
        return _side(size, self.stem_stride) >> self.spatial_layers.index(layer) >= 1

    @property
    def fc6_side(self) -> int:
        """Side of the map that fc6 reads: 7 for 224."""
        return _side(self.img_size, self.stem_stride) // 32


def _side(size: int, stem_stride: int | None) -> int:
    """Side of the map before the first pooling."""
    return -(-size // (stem_stride or 1))
