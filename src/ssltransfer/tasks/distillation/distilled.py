"""The base of the distillation methods: a student, and a teacher that is online or has stored features."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.artifacts.features import FeatureStore, open_features
from ssltransfer.artifacts.index import Index
from ssltransfer.config.methods import ContrastWithOthers, Distillation
from ssltransfer.config.protocols import Pool
from ssltransfer.data.device_ops import center_crop
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.data.transforms import Transform
from ssltransfer.models.backbone import Backbone, LayerError, move
from ssltransfer.models.normalize import normalize
from ssltransfer.models.pooling import pooled, pooled_shape
from ssltransfer.models.weights import read_model
from ssltransfer.tasks.student import StudentInputs, StudentTask
from ssltransfer.training.task import TrainingError

CHANCE_IMAGES = 256  # training images on which chance-level losses are estimated


class DistillationTask(StudentTask):
    """A fresh backbone, and a teacher's features of the same images.

    The default is an online teacher, which gets the same view as the student, under its own normalization and resized
    to its own input size. With `precompute_teacher` the loader's workers read features of the central crop of each
    whole image from a feature store (protocols 3.3).

    Attributes:
        layer: of the student, whose features are trained; maps are averaged over their locations.
        student_dim, teacher_dim: dimensions of the features.

    Raises:
        TrainingError: the stated queue or number of negatives is as large as the dataset.
        LayerError: the teacher or the student has no such layer.
        ArtifactError: the teacher or its features cannot be read, or the features belong to other images.
    """

    def __init__(self, inputs: StudentInputs):
        super().__init__(inputs.spec)
        assert isinstance(inputs.spec.method, Distillation)
        self.method = inputs.spec.method
        if isinstance(self.method, ContrastWithOthers) and (refusal := self.method.refusal(len(inputs.index))):
            raise TrainingError(f"students.method.{refusal}")
        self.layer = self.method.layer or self.backbone.layers[-1]
        self.backbone.require([self.layer], "students.method.layer")
        self.student_dim = self.backbone.shapes()[self.layer][0]
        self._online: OnlineTeacher | None = None
        self._stores: dict[bool, FeatureStore] = {}  # by "training"
        if inputs.features:
            sources = {True: (inputs.features, inputs.index), False: (inputs.val_features, inputs.val)}
            for training, (manifest, index) in sources.items():
                if manifest and index:
                    self._stores[training] = open_features(manifest, index=index.fingerprint)[0]
            self.teacher_dim = self._stores[True].shape[1]
        else:
            assert inputs.teacher is not None
            self._online = OnlineTeacher(inputs.teacher, self.method.teacher_layer, self.method.teacher_pool)
            self.teacher_dim = self._online.dim

    @property
    def transform(self) -> Transform:
        """CPU part of the student's view, with the stored features of the teacher if available."""
        view = super().transform
        return WithFeatures(view, self._stores[True]) if self._stores else view

    @property
    def val_transform(self) -> Transform:
        """The same for validation images."""
        view = super().val_transform
        return WithFeatures(view, self._stores[False]) if self._stores else view

    def teacher_features(self, batch: Batch, views: Tensor) -> Tensor:
        """Features of the teacher for the student's views: uint8 (B, 3, S, S) -> float32 (B, teacher_dim)."""
        return self._online(views) if self._online else batch.targets["teacher"].float()

    def student_features(self, views: Tensor, backbone: Backbone | None = None) -> Tensor:
        """Features of the student, or of a copy of it: uint8 (B, 3, S, S) -> float (B, student_dim)."""
        backbone = backbone or self.backbone
        return averaged(backbone(normalize(views, self.normalization), [self.layer])[self.layer])

    def feature_variance(self, index: Index) -> float:
        """Variance of the teacher's features over evenly spaced images, averaged over dimensions."""
        return float(self.sampled_teacher_features(index).var(0).mean())

    @torch.no_grad()
    def sampled_teacher_features(self, index: Index) -> Tensor:
        """The teacher's features of evenly spaced images, float32 (at most CHANCE_IMAGES, teacher_dim)."""
        size = self.spec.backbone.img_size
        batches = self.sampled_batches(index)
        return torch.cat([self.teacher_features(one, center_crop(one.images, size)) for one in batches])

    def sampled_batches(self, index: Index, count: int = CHANCE_IMAGES, workers: int = 0) -> Iterator[Batch]:
        """Batches of at most `count` evenly spaced training images, with the view of validation images."""
        view = super().val_transform
        transform = WithFeatures(view, self._stores[True]) if self._stores else view
        return load_batches(index, transform, sequential_keys(spaced_ids(index, count), 64), seed=0, workers=workers)


class OnlineTeacher:
    """A teacher that computes features of every view, of a layer (default: the last); not in the student's state.

    Raises:
        LayerError: the model has no such layer.
    """

    def __init__(self, manifest: Path, layer: str | None, pool: Pool | None):
        self.model = read_model(manifest)
        backbone = self.model.backbone
        self.layer, self.pool = layer or backbone.layers[-1], pool
        backbone.require([self.layer], manifest)
        self.dim = math.prod(pooled_shape(backbone.shapes()[self.layer], pool))

    def __call__(self, views: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> float32 (B, dim)."""
        return pooled(self.maps(views, [self.layer])[self.layer].float(), self.pool).flatten(1)

    @torch.no_grad()
    def maps(self, views: Tensor, layers: list[str]) -> dict[str, Tensor]:
        """uint8 (B, 3, S, S) -> activations of layers."""
        backbone = self.model.backbone
        move(backbone, views.device)
        size = backbone.options.img_size
        if views.shape[-1] != size:
            # CUDA resizes no uint8. Rounded, as a CPU would do.
            views = F.interpolate(views.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
            views = views.round_().clamp_(0, 255)
        return self.model.layers_of(views, layers)


def averaged(features: Tensor) -> Tensor:
    """The mean of a map (B, C, H, W) over its locations, (B, C); vectors (B, C) unchanged."""
    return features.mean((2, 3)) if features.ndim == 4 else features


def require_maps(backbone: Backbone, layers: Sequence[str], where: object) -> None:
    """Raise `LayerError`, whose message begins with `where`, unless the backbone has these layers as maps."""
    backbone.require(layers, where)
    maps = backbone.options.spatial_layers
    for layer in layers:
        if layer not in maps:
            raise LayerError(f"{where}: {layer} is a vector without locations; name maps: {', '.join(maps)}.")


def spaced_ids(index: Index, count: int = CHANCE_IMAGES) -> list[int]:
    """Ids of at most `count` evenly spaced images."""
    return list(range(0, len(index), -(-len(index) // count)))


@dataclass(frozen=True)
class WithFeatures(Transform):
    """A view of an image, and the row of a feature store that belongs to it."""

    view: Transform
    store: FeatureStore

    @property
    def min_short_side(self) -> int | None:
        """As the view's."""
        return self.view.min_short_side

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """`image`, uint8 (3, S, S), and `teacher`, (teacher_dim,) as stored."""
        row = torch.from_numpy(self.store.read(slice(sample, sample + 1))[0])
        return {**self.view(index, sample, image, rng), "teacher": row}


def concat_all_gather(value: Tensor) -> Tensor:
    """(B, ...) of each process -> the rows of the whole batch, in its order."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    parts = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, value.contiguous())
    return torch.cat(parts)
