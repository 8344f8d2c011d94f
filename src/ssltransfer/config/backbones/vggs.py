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


class Vgg19BN(BatchNormOptions):
    """Kolesnikov's VGG19: batch normalization after every layer, no biases, no dropout; ends with fc7."""

    name: Literal["vgg19-bn"] = "vgg19-bn"
    reference = "Kolesnikov et al. 2019, revisiting-self-supervised; protocols 2.2b"
    # fc6 reads a map of img_size / 32 a side, at least one pixel.
    img_size: int = Field(224, ge=32, le=2048)
    base_layers = ("conv1", "block1", "block2", "block3", "block4", "fc6", "fc7")
    flat_layers = ("fc6", "fc7")
