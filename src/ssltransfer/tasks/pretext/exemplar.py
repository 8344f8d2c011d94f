"""Exemplar (Dosovitskiy et al. 2014; Kolesnikov et al. 2019): views of one image have similar embeddings."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import Exemplar
from ssltransfer.data.colors import color_jitter
from ssltransfer.data.device_ops import random_grayscale, random_hflip, standardize
from ssltransfer.data.drawing import visible
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transfer import to_device
from ssltransfer.data.transforms import RandomResizedCrop, Views
from ssltransfer.models.build import build_backbone
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS, PretextTask
from ssltransfer.tasks.pretext.pooled_backbone import PatchEmbed
from ssltransfer.training.task import TrainingError


@PRETEXT_TASKS.register(Exemplar)
class ExemplarTask(PretextTask):
    """Triplet loss in which each image is a class of its own views (protocols 1.6a).

    The image is gray with probability .66. Each of eight random resized crops is flipped, has its colors distorted as
    in Inception (1.10), and is standardized. Gray is drawn on the device, once per image; it commutes with cropping.
    The loss compares the images of one forward pass: a micro-batch, or a device's part of it.

    `chance_loss` is the margin: the loss of a network with the same embedding for all images. Validation images have
    views too, the same in each validation.
    """

    def __init__(self, options: Exemplar, backbone: BackboneOptions, seed: int):
        super().__init__()
        self.options, self.size = options, backbone.img_size
        self.normalization = options.normalization
        self.backbone = build_backbone(backbone, include_top=False, seed=seed)
        self.embedding = PatchEmbed(self.backbone, backbone.img_size, "Images", options.embed_dim, seed=seed + 1)
        self.chance_loss = options.margin

    @property
    def transform(self) -> Views:
        """Independent random resized crops of one image."""
        return Views(RandomResizedCrop(self.size, scale=(self.options.min_scale, 1.0)), self.options.num_views)

    def inputs(self, images: Tensor, rng: SampleRNG) -> tuple[Tensor, Tensor]:
        """uint8 (B, V, 3, S, S) -> standardized views, float (B * V, 3, S, S), and their images, int64 (B * V,)."""
        count, views = images.shape[:2]
        image = torch.arange(count).repeat_interleave(views)
        # Own random numbers of each view: its id is the view's number, its epoch a random number of the image.
        number = torch.arange(views).repeat(count)
        each = SampleRNG(rng.seed, number, rng.host.bits("views", 1)[image, 0], images.device)
        seen = random_hflip(random_grayscale(images, rng, self.options.grayscale_prob).flatten(0, 1), each)
        return standardize(color_jitter(seen, each)), to_device(image, images.device)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """The triplet loss; `accuracy`: the nearest other view is of the same image.

        Raises:
            TrainingError: a training batch has one image only.
        """
        if len(batch) == 1 and self.training:
            raise TrainingError(
                "Exemplar compares images with each other; make batch_size and micro_batch_size 2 or more."
            )
        views, image = self.inputs(batch.images, rng)
        embedded = F.normalize(self.embedding(views).float(), dim=1 if self.options.norm_axis == "view" else 0)
        distance = squared_distances(embedded)
        itself = torch.eye(len(image), dtype=torch.bool, device=image.device)
        nearest = distance.detach().masked_fill(itself, torch.inf).argmin(1)
        same = image[:, None] == image
        # The last validation batch may have one image.
        alone = len(batch) == 1
        loss = distance.new_tensor(self.chance_loss) if alone else semi_hard_loss(distance, same, self.options.margin)
        return {"loss": loss, "accuracy": (image[nearest] == image).float().mean()}

    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """The first crop, and all views as inputs of the network."""
        seen = visible(self.inputs(batch.images, rng)[0]).unflatten(0, (len(batch), -1)).unbind(1)
        return [("first box", batch.images[:, 0]), *((f"view {n}", view) for n, view in enumerate(seen, 1))]


def squared_distances(x: Tensor) -> Tensor:
    """float32 (N, D) -> squared Euclidean distances (N, N); in float32 under autocast too."""
    with torch.autocast(x.device.type, enabled=False):
        square = x.square().sum(1)
        return (square[:, None] + square - 2 * x @ x.T).clamp(min=0)


def semi_hard_loss(distance: Tensor, same: Tensor, margin: float) -> Tensor:
    """Triplet loss with semi-hard negatives (Schroff et al. 2015), as tf.contrib's triplet_semihard_loss.

    For each pair of an anchor and a positive, the negative is the nearest one that is farther from the anchor than the
    positive, or the farthest one if there is none. The loss is the mean of max(0, d(a, p) + margin - d(a, n)).

    Args:
        distance: float32 (N, N), squared.
        same: bool (N, N), whether two rows have the same class; each row has other classes too.
    """
    negatives = distance.masked_fill(same, torch.inf).sort(dim=1).values
    farther = torch.searchsorted(negatives.detach(), distance.detach(), right=True)
    count = (~same).sum(1, keepdim=True)
    negative = negatives.gather(1, torch.minimum(farther, count - 1))
    pairs = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    hinges = (distance + margin - negative).clamp(min=0).masked_fill(~pairs, 0)
    return hinges.sum() / pairs.sum()
