"""Exemplar (Dosovitskiy et al. 2014; Kolesnikov et al. 2019): views of one image belong together."""

from __future__ import annotations

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
from ssltransfer.data.transforms import RandomResizedCrop, Views
from ssltransfer.models.build import build_backbone
from ssltransfer.models.normalize import Normalize
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS, PretextTask
from ssltransfer.tasks.pretext.patch_embed import PatchEmbed
from ssltransfer.training.task import TrainingError


@PRETEXT_TASKS.register(Exemplar)
class ExemplarTask(PretextTask):
    """Each image is a class of its own views, told from the others by a triplet loss (protocols 1.6a).

    The image is turned gray with probability .66; then eight boxes of it, each mirrored and distorted in color by
    itself as Inception does (1.10), get zero mean and unit deviation. A box and the mean of three channels may be taken
    in either order, so gray is decided on the device, once for a image. The loss compares the images of one pass
    with each other: of a micro-batch, and of a device's share, where a batch is divided.

    `chance_loss` is the margin: the loss of a network that says the same of all images, and about that of any whose
    distances have nothing to do with who is on them. Validation images are seen in views too, the same each time.
    """

    normalization: Normalize = "per-image"

    def __init__(self, options: Exemplar, backbone: BackboneOptions, seed: int):
        super().__init__()
        self.options, self.size = options, backbone.img_size
        self.backbone = build_backbone(backbone, include_top=False, seed=seed)
        self.embedding = PatchEmbed(self.backbone, backbone.img_size, "Images", options.embed_dim, seed=seed + 1)
        self.chance_loss = options.margin

    @property
    def transform(self) -> Views:
        """Independent random boxes of one image."""
        return Views(RandomResizedCrop(self.size, scale=(self.options.min_scale, 1.0)), self.options.num_views)

    def inputs(self, images: Tensor, rng: SampleRNG) -> tuple[Tensor, Tensor]:
        """uint8 (B, V, 3, S, S) -> views float (B * V, 3, S, S), normalized, and their image int64 (B * V,)."""
        count, views = images.shape[:2]
        image = torch.arange(count, device=images.device).repeat_interleave(views)
        # The image's own draw is the view's id and its number the epoch: a stream that no other view shares.
        number = torch.arange(views, device=images.device).repeat(count)
        each = SampleRNG(rng.seed, number, rng.bits("views", 1)[image, 0])
        seen = random_hflip(random_grayscale(images, rng, self.options.grayscale_prob).flatten(0, 1), each)
        return standardize(color_jitter(seen, each)), image

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """The triplet loss; `accuracy`: how often the nearest other view is of the same image.

        Raises:
            TrainingError: there is one image only, which has no others to be told from.
        """
        if len(batch) == 1 and self.training:
            raise TrainingError("Exemplar compares images with each other; make batch and micro_batch_size 2 or more.")
        views, image = self.inputs(batch.images, rng)
        embedded = F.normalize(self.embedding(views).float(), dim=1 if self.options.norm_axis == "view" else 0)
        distance = squared_distances(embedded)
        itself = torch.eye(len(image), dtype=torch.bool, device=image.device)
        nearest = distance.detach().masked_fill(itself, torch.inf).argmin(1)
        same = image[:, None] == image
        # The last of the validation images may be alone.
        alone = len(batch) == 1
        loss = distance.new_tensor(self.chance_loss) if alone else semi_hard_loss(distance, same, self.options.margin)
        return {"loss": loss, "accuracy": (image[nearest] == image).float().mean()}

    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """A box as it was cut, and all views as the network sees them."""
        seen = visible(self.inputs(batch.images, rng)[0]).unflatten(0, (len(batch), -1)).unbind(1)
        return [("first box", batch.images[:, 0]), *((f"view {n}", view) for n, view in enumerate(seen, 1))]


def squared_distances(x: Tensor) -> Tensor:
    """float32 (N, D) -> squared Euclidean distances (N, N); in float32 under autocast too."""
    with torch.autocast(x.device.type, enabled=False):
        square = x.square().sum(1)
        return (square[:, None] + square - 2 * x @ x.T).clamp(min=0)


def semi_hard_loss(distance: Tensor, same: Tensor, margin: float) -> Tensor:
    """Triplet loss with semi-hard negatives (Schroff et al. 2015), as tf.contrib's triplet_semihard_loss.

    For each pair of an anchor and another of its class, the negative is the nearest one that is farther from the anchor
    than the positive, or the farthest of all where none is; mean of max(0, d(a, p) + margin - d(a, n)) over the pairs.

    Args:
        distance: float32 (N, N), squared.
        same: bool (N, N), of one class; each row has others too.
        margin: of squared distances.
    """
    negatives = distance.masked_fill(same, torch.inf).sort(dim=1).values
    farther = torch.searchsorted(negatives.detach(), distance.detach(), right=True)
    count = (~same).sum(1, keepdim=True)
    negative = negatives.gather(1, torch.minimum(farther, count - 1))
    pairs = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    hinges = (distance + margin - negative).clamp(min=0).masked_fill(~pairs, 0)
    return hinges.sum() / pairs.sum()
