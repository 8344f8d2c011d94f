"""Exemplar on patches (Doersch & Zisserman 2017): views of one location closer than a view of another image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.tasks import ExemplarPatches
from ssltransfer.data.colors import color_jitter
from ssltransfer.data.drawing import outlined, visible
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.data.transfer import to_device
from ssltransfer.data.transforms import Warp
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.normalize import normalize
from ssltransfer.tasks.pretext.base import PRETEXT_TASKS, PretextTask, backbone_of, partners
from ssltransfer.tasks.pretext.residual_head import PatchVectors


@PRETEXT_TASKS.register(ExemplarPatches)
class ExemplarPatchesTask(PretextTask):
    """max(D(x1, x2) - D(x1, x3) + margin, 0) with D = 1 - cosine of the patches' vectors (protocols 1.6b).

    x1 and x2 are views of one random location, each with its own shift, scale, rotation and color distortion. x3 is the
    first view of the image's partner in the batch, so that no view is computed for another image alone. Views are
    padded by reflection.
    """

    def __init__(self, options: ExemplarPatches, backbone: BackboneOptions | Backbone, seed: int):
        super().__init__()
        self.options, self.normalization = options, options.normalization
        self.backbone = backbone_of(backbone, seed)
        self.vectors = PatchVectors(self.backbone, options.head, patch=options.patch, seed=seed + 1)
        self.chance_loss = options.margin

    @property
    def transform(self) -> Warp:
        """The whole image resized to a square."""
        return Warp(self.options.resize)

    def affine_matrices(self, images: Tensor, rng: SampleRNG) -> Tensor:
        """Affine matrices of the two views of each image, float (B, 2, 2, 3).

        A matrix maps (x, y, 1), in pixels from the patch's center, to x and y in the image. (0, 0) is the center of the
        image's first pixel.
        """
        options, patch = self.options, self.options.patch
        batch, _, height, width = images.shape
        room = torch.tensor([width - patch, height - patch])
        center = (patch - 1) / 2 + room * rng.host.uniform("place", 2)  # the upright patch is inside the image
        four = rng.host.uniform("view", 2 * 4, -1.0, 1.0).reshape(batch, 2, 4)
        middle = center[:, None] + options.translation * patch * four[..., :2]
        low, high = (math.log(end) for end in options.scale)
        scale = torch.exp((low + high) / 2 + (high - low) / 2 * four[..., 2])
        angle = math.radians(options.rotation) * four[..., 3]
        cos, sin = scale * angle.cos(), scale * angle.sin()
        rows = (torch.stack([cos, -sin, middle[..., 0]], dim=-1), torch.stack([sin, cos, middle[..., 1]], dim=-1))
        return to_device(torch.stack(rows, dim=-2), images.device)

    def views(self, images: Tensor, matrices: Tensor) -> Tensor:
        """Views before color distortion: float (B, 2, 3, patch, patch), 0 to 255, bilinear."""
        patch = self.options.patch
        height, width = images.shape[-2:]
        offset = torch.arange(patch, device=images.device) - (patch - 1) / 2
        y, x = torch.meshgrid(offset, offset, indexing="ij")
        # Explicit sums of products: a matrix product may be rounded to TF32 or bfloat16.
        at = [row[..., :1, None] * x + row[..., 1:2, None] * y + row[..., 2:, None] for row in matrices.unbind(2)]
        # grid_sample counts from -1 at the first pixel's edge to 1 at the last one's.
        grid = torch.stack([(2 * one + 1) / size - 1 for one, size in zip(at, (width, height), strict=True)], dim=-1)
        sampled = F.grid_sample(
            images.float(), grid.flatten(1, 2), mode="bilinear", padding_mode="reflection", align_corners=False
        )
        return sampled.unflatten(2, (2, patch)).transpose(1, 2)

    def inputs(self, images: Tensor, rng: SampleRNG) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S) -> two views of each, float (B, 2, 3, patch, patch), normalized, and their matrices."""
        options = self.options
        matrices = self.affine_matrices(images, rng)
        distorted = [
            color_jitter(
                view,
                rng,
                brightness=options.brightness,
                contrast=options.contrast,
                saturation=options.saturation,
                hue=options.hue,
                purpose=f"colors/{number}",
            )
            for number, view in enumerate(self.views(images, matrices).unbind(1))
        ]
        return torch.stack([normalize(view, self.normalization) for view in distorted], dim=1), matrices

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Hinge loss, averaged over the images; accuracy: the other view is nearer than the other image."""
        inputs, _ = self.inputs(batch.images, rng)
        vectors = self.vectors(inputs.flatten(0, 1)).float().unflatten(0, (-1, 2))
        one, two = vectors.unbind(1)
        three = partners(one, "Exemplar on patches")
        loss, accuracy = triplet_loss(one, two, three, self.options.margin)
        return {"loss": loss, "accuracy": accuracy}

    def show(self, batch: Batch, rng: SampleRNG) -> list[tuple[str, Tensor]]:
        """The image with its two views, and the partner's first view."""
        inputs, matrices = self.inputs(batch.images, rng)
        end = self.options.patch / 2
        corners = torch.tensor([(-end, -end, 1), (end, -end, 1), (end, end, 1), (-end, end, 1)])
        outlines = (matrices.cpu() @ corners.T).mT
        marked = [outlined(image, outline) for image, outline in zip(batch.images, outlines, strict=True)]
        first, second = (visible(view) for view in inputs.unbind(1))
        other = partners(first, "Exemplar on patches")
        return [
            ("image", torch.stack(marked)),
            ("x1: a view", first),
            ("x2: close to x1", second),
            ("x3: far from x1", other),
        ]


def triplet_loss(one: Tensor, two: Tensor, three: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Hinge loss of cosine distances, and how often `two` is nearer to `one` than `three` is; vectors are (N, D)."""
    alike, unlike = (1 - F.cosine_similarity(one, other) for other in (two, three))
    return (alike - unlike + margin).clamp(min=0).mean(), (alike < unlike).float().mean()
