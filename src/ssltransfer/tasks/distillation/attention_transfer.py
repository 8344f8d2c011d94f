"""A task's own loss and a teacher's attention: the second distillation baseline of Noroozi et al. 2018."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.config.methods import AttentionTransfer
from ssltransfer.data.loader import Batch, load_batches, sequential_keys
from ssltransfer.data.rng import SampleRNG
from ssltransfer.models.backbone import Backbone, LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import read_model
from ssltransfer.tasks.distillation.distilled import IMAGES
from ssltransfer.tasks.distillation.layer_regression import match_spatial_size
from ssltransfer.tasks.pretext.base import build_task
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs, StudentTask
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import TaskWrapper

Call = tuple[Tensor, dict[str, Tensor]]  # inputs float (N, 3, S, S), and layers of them


@STUDENT_METHODS.register(AttentionTransfer)
class AttentionTransferTask(TaskWrapper, StudentTask):
    """A pretext task's loss, and how far the student's attention lies from the teacher's, layer by layer.

    Noroozi et al. 2018, section 5 (6 ii), after Zagoruyko & Komodakis 2017, equation 2 (protocols 3.2):

        L = L_task + sum over layers of beta / (2 places) * || Qs / ||Qs|| - Qt / ||Qt|| ||

    Q is a map's squared activations, summed over channels. The transfer loss is a mean over all inputs of the student's
    backbone, such as the nine tiles of each puzzle. The teacher gets the same tensors, in evaluation mode, with the
    strides that it would have in that task. Both must use the same normalization, since the task normalizes its inputs.

    The chance-level loss is that of the task plus the transfer loss of uniform attention, over a few hundred images.

    Raises:
        ArtifactError: the teacher cannot be read, or learned under another rule.
        LayerError: the teacher or the student has no such layer, or it is no map.
    """

    def __init__(self, given: StudentInputs):
        method, spec = given.spec.method, given.spec
        assert isinstance(method, AttentionTransfer) and given.teacher is not None
        task = build_task(method.task, spec.backbone, spec.seed)
        super().__init__(spec, task.backbone)
        self.task, self.normalization, self.beta = task, task.normalization, method.beta
        self.layers = list(method.layers)
        self.teacher_layers = list(method.teacher_layers or method.layers)
        model = read_model(given.teacher)
        if model.normalization != self.normalization:
            raise ArtifactError(
                f"{given.teacher}: it learned from images normalized as {model.normalization!r}, but {method.task.name} "
                f"gives them as {self.normalization!r}; name a teacher whose task has that rule."
            )
        _require_maps(self.backbone, self.layers, "students.method.layers")
        _require_maps(model.backbone, self.teacher_layers, given.teacher)
        theirs = build_task(method.task, model.backbone.options, spec.seed).backbone
        weights = model.backbone.state_dict()
        theirs.load_state_dict({name: weights[name] for name in theirs.state_dict()})
        self._teacher = Teacher(theirs, self.teacher_layers)
        self.flat: Tensor
        self.register_buffer("flat", torch.zeros(()))

    @property
    def chance_loss(self) -> float:  # type: ignore[override]
        """The task's, and the transfer of a student that attends to all places alike, once that was measured."""
        return super().chance_loss + float(self.flat)

    def written(self) -> Backbone:
        """The convolutions under the backbone's own strides; the task's head and its strides on tiles stay behind."""
        backbone = build_backbone(self.spec.backbone, include_top=False)
        backbone.load_state_dict(self.backbone.state_dict())
        return backbone

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """The task's values, its loss as `task_loss`, and the transfer of each layer; `loss` is the sum of these."""
        with calls_of(self.backbone, self.layers) as calls:
            values: dict[str, Tensor] = self.task(batch, rng)
        terms = {"task_loss": values["loss"], **self.transfer(calls)}
        return {**values, **terms, "loss": torch.stack(list(terms.values())).sum()}

    def transfer(self, calls: Sequence[Call]) -> dict[str, Tensor]:
        """Half of beta times the distances a place of each layer, a mean over all inputs.

        Args:
            calls: what the student's backbone was given, and its layers; one at least.
        """
        parts: dict[str, list[Tensor]] = {f"{layer}_loss": [] for layer in self.layers}
        for inputs, mine in calls:
            theirs = self._teacher(inputs)
            # Out of autocast: squares in float16 overflow.
            with torch.autocast(inputs.device.type, enabled=False):
                for layer, other in zip(self.layers, self.teacher_layers, strict=True):
                    parts[f"{layer}_loss"].append(distances(mine[layer].float(), theirs[other].float()))
        return {name: self.beta / 2 * torch.cat(found).mean() for name, found in parts.items()}

    @torch.no_grad()
    def on_train_start(self, index: Index, devices: Devices) -> None:
        """What the task must know, and how far the teacher's attention lies from none."""
        super().on_train_start(index, devices)
        ids = list(range(0, len(index), -(-len(index) // IMAGES)))
        ids = ids[: len(ids) // 2 * 2] or ids  # tasks that take images in pairs
        schedule = self.spec.schedule
        keys = sequential_keys(ids, schedule.micro_batch_size or schedule.batch_size)
        was = self.training
        self.eval()
        total = torch.zeros((), dtype=torch.float64)
        for batch in load_batches(index, self.val_transform, keys, seed=self.spec.seed, workers=devices.workers):
            batch = batch.to(devices.device)
            with calls_of(self.backbone, self.layers) as calls:
                self.task(batch, batch.rng(self.spec.seed))
            level = [(x, {name: torch.ones_like(value) for name, value in found.items()}) for x, found in calls]
            total += torch.stack(list(self.transfer(level).values())).sum().cpu() * len(batch)
        self.train(was)
        self.flat.copy_(total / len(ids))


class Teacher:
    """Layers of a backbone, without gradient; no part of the student's state."""

    def __init__(self, backbone: Backbone, layers: Sequence[str]):
        self.backbone, self.layers = backbone.eval().requires_grad_(False), layers

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> dict[str, Tensor]:
        """Of normalized float (N, 3, S, S)."""
        found: dict[str, Tensor] = self.backbone.to(inputs.device)(inputs, self.layers)
        return found


@contextmanager
def calls_of(backbone: Backbone, layers: Sequence[str]) -> Iterator[list[Call]]:
    """Record the inputs of a backbone and these layers of each forward pass, whatever layers its caller requests."""
    calls: list[Call] = []

    def more(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        x, asked = (*given, *named.values(), None)[:2]
        return (x, [*(backbone.layers[-1:] if asked is None else asked), *layers]), {}

    def keep(_: nn.Module, given: tuple[Any, ...], found: dict[str, Tensor]) -> None:
        calls.append((given[0], {layer: found[layer] for layer in layers}))

    hooks = [backbone.register_forward_pre_hook(more, with_kwargs=True), backbone.register_forward_hook(keep)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def distances(student: Tensor, teacher: Tensor) -> Tensor:
    """How far the attention of two maps lies apart, over the number of their places.

    A map that is zero everywhere attends to no place: it is zero, not of length 1. Where both attend alike the gradient
    is zero.

    Args:
        student, teacher: (N, C, H, W) each; the larger one's attention is averaged to the smaller one's places.

    Returns:
        (N,), between 0 and the root of 2, over the places.
    """
    pair = match_spatial_size(*(x.square().sum(1, keepdim=True) for x in (student, teacher)))
    mine, theirs = (F.normalize(x.flatten(1)) for x in pair)
    return torch.linalg.vector_norm(mine - theirs, dim=1) / mine.shape[1]


def _require_maps(backbone: Backbone, layers: Sequence[str], where: object) -> None:
    backbone.require(layers, where)
    for layer in layers:
        if layer not in backbone.options.spatial_layers:
            raise LayerError(
                f"{where}: {layer} is a vector, which has no spatial attention; name maps: "
                f"{', '.join(backbone.options.spatial_layers)}."
            )
