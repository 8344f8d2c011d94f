"""A student without labels: what all methods share that learn from the features of a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from ssltransfer.artifacts.features import FeatureStore, open_features
from ssltransfer.artifacts.index import Index
from ssltransfer.config.methods import Distillation
from ssltransfer.config.protocols import Pool
from ssltransfer.data.device_ops import center_crop
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.data.transforms import Transform
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.normalize import normalize
from ssltransfer.models.pooling import pooled, pooled_shape
from ssltransfer.models.weights import read_model
from ssltransfer.tasks.student import StudentInputs, StudentTask

IMAGES = 256  # of which chance is estimated


class DistillationTask(StudentTask):
    """A fresh backbone that sees views of images, and what a teacher says of the same images.

    A live teacher sees the very view that the student sees, under its own normalization, resized where its input has
    another size. A cached one was asked once about the central crop of each whole image (protocols 3.3); its answers
    are read by the loader's workers.

    Attributes:
        layer: of the student, that is taught; of a map, the average over its places.
        student_dim: length of the student's vector.
        teacher_dim: length of the teacher's.

    Raises:
        LayerError: the teacher or the student has no such layer.
        ArtifactError: the teacher, or what it said, cannot be read or belongs to other images.
    """

    def __init__(self, given: StudentInputs):
        super().__init__(given.spec)
        assert isinstance(given.spec.method, Distillation)
        self.method = given.spec.method
        self.layer = self.method.layer or self.backbone.layers[-1]
        shapes = self.backbone.shapes()
        if self.layer not in shapes:
            raise LayerError(
                f"students.method.layer: {self.backbone.options.name} has no layer {self.layer!r}; "
                f"it has {', '.join(shapes)}."
            )
        self.student_dim = shapes[self.layer][0]
        self._online: OnlineTeacher | None = None
        self._said: dict[bool, FeatureStore] = {}
        if given.features:
            for training, manifest, index in (
                (True, given.features, given.index),
                (False, given.val_features, given.val),
            ):
                if manifest and index:
                    self._said[training] = open_features(manifest, index=index.fingerprint)[0]
            self.teacher_dim = self._said[True].shape[1]
        else:
            assert given.teacher is not None
            self._online = OnlineTeacher(given.teacher, self.method.teacher_layer, self.method.teacher_pool)
            self.teacher_dim = self._online.dim

    @property
    def transform(self) -> Transform:
        """CPU part of the student's view, with the row of the teacher's features where they are read."""
        view = super().transform
        return WithFeatures(view, self._said[True]) if self._said else view

    @property
    def val_transform(self) -> Transform:
        """The same for validation images."""
        view = super().val_transform
        return WithFeatures(view, self._said[False]) if self._said else view

    def teacher_features(self, batch: Batch, views: Tensor) -> Tensor:
        """What the teacher says, float32 (B, teacher_dim), without gradient.

        Args:
            batch: what was loaded.
            views: uint8 (B, 3, S, S), what the student sees.
        """
        return self._online(views) if self._online else batch.targets["teacher"].float()

    @torch.no_grad()
    def feature_variance(self, index: Index) -> float:
        """Variance of the teacher's features, a mean over dimensions, of evenly spaced images of the training set."""
        view = super().val_transform
        transform = WithFeatures(view, self._said[True]) if self._said else view
        keys = sequential_keys(list(range(0, len(index), -(-len(index) // IMAGES))), 64)
        size = self.spec.backbone.img_size
        batches = load_batches(index, transform, keys, seed=0)
        return float(
            torch.cat([self.teacher_features(one, center_crop(one.images, size)) for one in batches]).var(0).mean()
        )

    def student_features(self, views: Tensor) -> Tensor:
        """What the student says: uint8 (B, 3, S, S) -> float (B, student_dim)."""
        found: Tensor = self.backbone(normalize(views, self.normalization), [self.layer])[self.layer]
        return found.mean((2, 3)) if found.ndim == 4 else found


class OnlineTeacher:
    """A teacher that is asked about every view; no part of the student's state.

    Args:
        manifest: of the model.
        layer: default its last.
        pool: of that layer where it is a map.
    """

    def __init__(self, manifest: Path, layer: str | None, pool: Pool | None):
        self.model = read_model(manifest)
        backbone = self.model.backbone
        self.layer, self.pool = layer or backbone.layers[-1], pool
        if self.layer not in backbone.layers:
            raise LayerError(f"{manifest}: no layer {self.layer!r}; it has {', '.join(backbone.layers)}.")
        self.dim = int(torch.Size(pooled_shape(backbone.shapes()[self.layer], pool)).numel())

    def __call__(self, views: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> float32 (B, dim)."""
        return pooled(self.maps(views, [self.layer])[self.layer].float(), self.pool).flatten(1)

    @torch.no_grad()
    def maps(self, views: Tensor, layers: list[str]) -> dict[str, Tensor]:
        """Layers as they are, of uint8 (B, 3, S, S) views."""
        backbone = self.model.backbone.to(views.device)
        size = backbone.options.img_size
        if views.shape[-1] != size:
            views = F.interpolate(views, (size, size), mode="bilinear", antialias=True, align_corners=False)
        return self.model.layers_of(views, layers)


@dataclass(frozen=True)
class WithFeatures(Transform):
    """A view of a image, and the row of a feature store that belongs to it."""

    view: Transform
    store: FeatureStore

    @property
    def min_short_side(self) -> int | None:
        """That of the view."""
        return self.view.min_short_side

    def __call__(self, index: Index, sample: int, image: Tensor, rng: Random) -> dict[str, Tensor]:
        """`image`, uint8 (3, S, S), and `teacher`, (teacher_dim,) as stored."""
        row = torch.from_numpy(self.store.read(slice(sample, sample + 1))[0])
        return {**self.view(index, sample, image, rng), "teacher": row}


def concat_all_gather(value: Tensor) -> Tensor:
    """(B, ...) of each process -> those of the whole batch, in its order."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    parts = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, value.contiguous())
    return torch.cat(parts)
