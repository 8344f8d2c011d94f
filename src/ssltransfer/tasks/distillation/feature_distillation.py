"""Feature distillation: a teacher's pooled features and maps, regressed through a head."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.index import Index
from ssltransfer.config.methods import FeatureDistillation
from ssltransfer.config.methods.feature_distillation import FeatureLoss, FurtherTeacher
from ssltransfer.config.protocols import Pool
from ssltransfer.data.device_ops import center_crop
from ssltransfer.data.loader import Batch
from ssltransfer.data.rng import SampleRNG
from ssltransfer.models.normalize import normalize
from ssltransfer.models.pooling import pooled
from ssltransfer.tasks.distillation.distilled import (
    CHANCE_IMAGES,
    DistillationTask,
    OnlineTeacher,
    averaged,
    require_maps,
)
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import TrainingError

STATISTICS_IMAGES = 4096  # training images on which `teacher_normalization` is measured; chosen
WHITENING_EPSILON = 0.01  # times the mean eigenvalue, added to each one; chosen
STANDARD_EPSILON = 1e-6  # times the mean variance: the smallest variance that is divided by; chosen


@dataclass(frozen=True)
class Term:
    """A distance between a layer of the student and one of a teacher.

    `name` is pooled or map, with the number of the teacher from the second on (`pooled2`). `teacher` is its place.
    """

    name: str
    is_map: bool
    weight: float
    layer: str
    teacher: int
    teacher_layer: str
    teacher_pool: Pool | None
    dims: tuple[int, int]  # of student and teacher


@STUDENT_METHODS.register(FeatureDistillation)
class FeatureDistillationTask(DistillationTask):
    """The weighted sum of a pooled term and a map term of each teacher: distances of the student's features from it.

    SimReg (Navaneet et al. 2021) and AM-RADIO (Ranzinger et al. 2024); protocols 3.5. Each term has a head of its own
    from the student's features to the teacher's. On maps it acts on each location. Its output is then resized to the
    teacher's map, bilinearly.

    `teacher_normalization` and the chance-level loss are measured before the first step. The latter is the loss of the
    teacher's mean feature. The curve has the terms without their weights as `pooled_loss`, `map_loss`, `pooled2_loss`
    and so on.

    Attributes:
        terms: those with a weight.

    Raises:
        LayerError: a teacher or the student has no such layer, or it is not a map.
        TrainingError: no head, and other dimensions than the teacher's.
    """

    def __init__(self, inputs: StudentInputs):
        super().__init__(inputs)
        assert isinstance(self.method, FeatureDistillation)
        self.options = self.method
        further = zip(self.options.further_teachers, inputs.further_teachers, strict=True)
        self._teachers: list[OnlineTeacher | None] = [
            self._online,
            *(OnlineTeacher(manifest, one.teacher_layer, one.teacher_pool) for one, manifest in further),
        ]
        self.terms = list(self._terms_of(0, self.options, inputs.teacher))
        for number, one in enumerate(self.options.further_teachers, start=1):
            self.terms += self._terms_of(number, one, inputs.further_teachers[number - 1])
        self.heads = nn.ModuleDict()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(inputs.spec.seed + 1)
            for term in self.terms:
                # Without a head the first teacher's feature is the student's.
                headless = self.options.head == "none" and term.name == "pooled"
                self.heads[term.name] = nn.Identity() if headless else head_of(self.options, *term.dims)
                self.register_buffer(f"{term.name}_chance", torch.zeros(()))
                if self.options.teacher_normalization != "none":
                    whiten = self.options.teacher_normalization == "whiten"
                    self.register_buffer(f"{term.name}_mean", torch.zeros(term.dims[1]))
                    self.register_buffer(f"{term.name}_scale", (torch.eye if whiten else torch.ones)(term.dims[1]))

    def _terms_of(
        self, number: int, options: FeatureDistillation | FurtherTeacher, where: Path | None
    ) -> Iterator[Term]:
        suffix, teacher = str(number + 1) if number else "", self._teachers[number]
        if options.pooled_weight:
            layer, dim = (teacher.layer, teacher.dim) if teacher else ("", self.teacher_dim)
            dims = self.student_dim, dim
            if self.options.head == "none" and number == 0 and self.student_dim != dim:
                raise TrainingError(
                    f"students.method.head: layer {self.layer} of the student has {self.student_dim} dimensions, and "
                    f"the teacher's feature {dim}; set `embed_dim: {dim}` of the student's backbone, or another `head`."
                )
            pool = options.teacher_pool
            yield Term(f"pooled{suffix}", False, options.pooled_weight, self.layer, number, layer, pool, dims)
        if options.map_weight:
            assert teacher is not None
            network = teacher.model.backbone
            layer = self.options.map_layer or self.backbone.options.spatial_layers[-1]
            teacher_layer = options.teacher_map_layer or network.options.spatial_layers[-1]
            require_maps(self.backbone, [layer], "students.method.map_layer")
            require_maps(network, [teacher_layer], where)
            dims = self.backbone.shapes()[layer][0], network.shapes()[teacher_layer][0]
            yield Term(f"map{suffix}", True, options.map_weight, layer, number, teacher_layer, None, dims)

    @property
    def chance_loss(self) -> float:  # type: ignore[override]
        """The loss of the teachers' mean features, which `on_train_start` measures."""
        return sum(term.weight * float(self.get_buffer(f"{term.name}_chance")) for term in self.terms)

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """Distances, averaged over the batch and the locations of maps, and their weighted sum."""
        views = self.views(batch, rng)
        targets = self.targets(batch, views)
        features = self.backbone(normalize(views, self.normalization), [term.layer for term in self.terms])
        losses = {}
        for term in self.terms:
            value = features[term.layer]
            value = _channels_last(value) if term.is_map else averaged(value)
            student = self.heads[term.name](value.flatten(0, -2)).unflatten(0, value.shape[:-1]).float()
            target = targets[term.name]
            with torch.autocast(views.device.type, enabled=False):
                losses[term.name] = self.distance(term, resized(student, target), self.normalized(term.name, target))
        loss = torch.stack([term.weight * losses[term.name] for term in self.terms]).sum()
        return {"loss": loss, **{f"{name}_loss": value for name, value in losses.items()}}

    def targets(self, batch: Batch, views: Tensor) -> dict[str, Tensor]:
        """The teachers' features of each term, float32: pooled (B, d), maps (B, H, W, d)."""
        found: dict[str, Tensor] = {}
        for number, teacher in enumerate(self._teachers):
            terms = [term for term in self.terms if term.teacher == number]
            if teacher is None:
                found |= {term.name: self.teacher_features(batch, views) for term in terms}
                continue
            layers = teacher.maps(views, [term.teacher_layer for term in terms])
            for term in terms:
                value = layers[term.teacher_layer].float()
                found[term.name] = _channels_last(value) if term.is_map else pooled(value, term.teacher_pool).flatten(1)
        return found

    def normalized(self, term: str, target: Tensor) -> Tensor:
        """Features (..., d) of the teacher after `teacher_normalization`."""
        if self.options.teacher_normalization == "none":
            return target
        centered, scale = target - self.get_buffer(f"{term}_mean"), self.get_buffer(f"{term}_scale")
        return centered @ scale if scale.ndim == 2 else centered * scale

    def distance(self, term: Term, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of a term for features (..., d), a scalar."""
        kind = (term.is_map and self.options.map_loss) or self.options.loss
        return feature_loss(kind, student.flatten(0, -2), teacher.flatten(0, -2))

    @torch.no_grad()
    def on_train_start(self, index: Index, devices: Devices) -> None:
        """Measure the statistics of the teacher's features, then the loss of their mean."""
        normalizes = self.options.teacher_normalization != "none"
        means = {}
        for name, (mean, covariance) in self._moments(index, devices, covariances=normalizes).items():
            if covariance is not None:
                scale = scale_of(covariance, whiten=self.options.teacher_normalization == "whiten")
                self.get_buffer(f"{name}_mean").copy_(mean)
                self.get_buffer(f"{name}_scale").copy_(scale)
            means[name] = self.normalized(name, mean.float().to(devices.device))
        sums, count = dict.fromkeys((term.name for term in self.terms), 0.0), 0
        for targets in self._sampled_targets(index, CHANCE_IMAGES, devices):
            for term in self.terms:
                teacher = self.normalized(term.name, targets[term.name])
                distance = self.distance(term, means[term.name].expand_as(teacher), teacher)
                sums[term.name] += float(distance) * len(teacher)
            count += len(next(iter(targets.values())))
        for name, total in sums.items():
            self.get_buffer(f"{name}_chance").fill_(total / count)

    def _sampled_targets(self, index: Index, count: int, devices: Devices) -> Iterator[dict[str, Tensor]]:
        for batch in self.sampled_batches(index, count, devices.workers):
            batch = batch.to(devices.device)
            yield self.targets(batch, center_crop(batch.images, self.spec.backbone.img_size))

    def _moments(self, index: Index, devices: Devices, *, covariances: bool) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Mean (d,) and covariance (d, d), if wanted, of the teacher's features of each term, float64, on a CPU."""
        sums: dict[str, tuple[int, Tensor, Tensor]] = {}
        for targets in self._sampled_targets(index, STATISTICS_IMAGES if covariances else CHANCE_IMAGES, devices):
            for term, target in targets.items():
                rows = target.flatten(0, -2)
                n, total, products = sums.get(term, (0, torch.zeros(()), torch.zeros(())))
                total = total + rows.sum(0, dtype=torch.float64).cpu()
                if covariances:
                    products = products + (rows.T @ rows).double().cpu()
                sums[term] = n + len(rows), total, products
        return {
            term: (total / n, products / n - torch.outer(total / n, total / n) if covariances else None)
            for term, (n, total, products) in sums.items()
        }


def head_of(options: FeatureDistillation, student_dim: int, teacher_dim: int) -> nn.Module:
    """A linear layer, or SimReg's head: two perceptrons of one hidden layer, the first one back to `student_dim`."""
    if options.head != "mlp":
        return nn.Linear(student_dim, teacher_dim)
    hidden = options.hidden_dim or 2 * student_dim
    layers: list[nn.Module] = []
    for out in (student_dim, teacher_dim):
        layers += [nn.Linear(student_dim, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out)]
    return nn.Sequential(*layers)


def feature_loss(kind: FeatureLoss, student: Tensor, teacher: Tensor) -> Tensor:
    """The distance of features (N, d), averaged over N: 1 - cosine, or an error that is averaged over dimensions."""
    if kind == "l2":
        return F.mse_loss(student, teacher)
    if kind == "smooth-l1":
        return F.smooth_l1_loss(student, teacher)
    cosine = 1 - F.cosine_similarity(student, teacher, dim=1).mean()
    return cosine if kind == "cosine" else 0.9 * cosine + 0.1 * F.smooth_l1_loss(student, teacher)


def scale_of(covariance: Tensor, *, whiten: bool) -> Tensor:
    """What centered features are multiplied by: standard deviations' inverses (d,), or a symmetric matrix (d, d)."""
    if not whiten:
        variance = covariance.diagonal()
        return variance.clamp(min=STANDARD_EPSILON * float(variance.mean()) or 1.0).rsqrt()
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0) + (WHITENING_EPSILON * float(values.mean()) or 1.0)
    return vectors * values.rsqrt() @ vectors.T


def resized(student: Tensor, teacher: Tensor) -> Tensor:
    """Features of the student (B, h, w, d), resized bilinearly to the teacher's (B, H, W, d); vectors unchanged."""
    if student.shape[1:-1] == teacher.shape[1:-1]:
        return student
    # antialias: a larger map is averaged, not sampled.
    resized = F.interpolate(
        student.permute(0, 3, 1, 2), tuple(teacher.shape[1:-1]), mode="bilinear", antialias=True, align_corners=False
    )
    return _channels_last(resized)


def _channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C)."""
    return x.permute(0, 2, 3, 1)
