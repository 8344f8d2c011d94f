"""Attention transfer: a pretext loss plus a teacher's attention (distillation baseline of Noroozi et al. 2018)."""

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
from ssltransfer.models.backbone import Backbone, move
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import read_model
from ssltransfer.tasks.distillation.distilled import require_maps, spaced_ids
from ssltransfer.tasks.distillation.layer_regression import match_spatial_size
from ssltransfer.tasks.pretext.base import build_task
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs, StudentTask
from ssltransfer.training.devices import Devices
from ssltransfer.training.task import TaskWrapper

Call = tuple[Tensor, dict[str, Tensor]]  # inputs float (N, 3, S, S), and the activations of layers


@STUDENT_METHODS.register(AttentionTransfer)
class AttentionTransferTask(TaskWrapper, StudentTask):
    """A pretext task's loss plus the distance of the student's attention maps from the teacher's.

    Noroozi et al. 2018, section 5 (6 ii), after Zagoruyko & Komodakis 2017, equation 2 (protocols 3.2):

        L = L_task + sum over layers of beta / (2 locations) * || Qs / ||Qs|| - Qt / ||Qt|| ||

    Q is a map's squared activations, summed over channels. The transfer loss is a mean over all inputs of the student's
    backbone, such as the nine tiles of each puzzle. The teacher gets the same tensors, in evaluation mode, with the
    strides that it would have in that task. Both must use the same normalization, because the task normalizes its
    inputs.

    The chance-level loss is that of the task plus the transfer loss of uniform attention, over a few hundred images.

    Raises:
        ArtifactError: the teacher cannot be read, or was trained with another normalization.
        LayerError: the teacher or the student has no such layer, or it is not a map.
    """

    def __init__(self, inputs: StudentInputs):
        method, spec = inputs.spec.method, inputs.spec
        assert isinstance(method, AttentionTransfer) and inputs.teacher is not None
        task = build_task(method.task, spec.backbone, spec.seed)
        super().__init__(spec, task.backbone)
        self.task, self.normalization, self.beta = task, task.normalization, method.beta
        self.layers = list(method.layers)
        self.teacher_layers = list(method.teacher_layers or method.layers)
        model = read_model(inputs.teacher)
        if model.normalization != self.normalization:
            raise ArtifactError(
                f"{inputs.teacher}: it was trained on images normalized as {model.normalization!r}, but "
                f"{method.task.name} normalizes them as {self.normalization!r}; name a teacher with that normalization."
            )
        require_maps(self.backbone, self.layers, "students.method.layers")
        require_maps(model.backbone, self.teacher_layers, inputs.teacher)
        teacher = build_task(method.task, model.backbone.options, spec.seed).backbone
        weights = model.backbone.state_dict()
        teacher.load_state_dict({name: weights[name] for name in teacher.state_dict()})
        self._teacher = [teacher.eval().requires_grad_(False)]  # in a list: not a part of the student's state
        self.uniform_transfer: Tensor
        self.register_buffer("uniform_transfer", torch.zeros(()))

    @property
    def chance_loss(self) -> float:  # type: ignore[override]
        """The task's plus the transfer loss of uniform attention, which `on_train_start` measures."""
        return super().chance_loss + float(self.uniform_transfer)

    def written(self) -> Backbone:
        """The convolutions under the backbone's own strides, without the task's head and its strides on tiles."""
        backbone = build_backbone(self.spec.backbone, include_top=False)
        backbone.load_state_dict(self.backbone.state_dict())
        return backbone

    def forward(self, batch: Batch, rng: SampleRNG) -> dict[str, Tensor]:
        """The task's values with its loss as `task_loss`, the transfer loss of each layer, and their sum as `loss`."""
        with calls_of(self.backbone, self.layers) as calls:
            values: dict[str, Tensor] = self.task(batch, rng)
        terms = {"task_loss": values["loss"], **self.transfer(calls)}
        return {**values, **terms, "loss": torch.stack(list(terms.values())).sum()}

    def transfer(self, calls: Sequence[Call]) -> dict[str, Tensor]:
        """beta / 2 times the attention distance per spatial location, averaged over all inputs, for each layer."""
        parts: dict[str, list[Tensor]] = {f"{layer}_loss": [] for layer in self.layers}
        for inputs, student in calls:
            with torch.no_grad():
                move(self._teacher[0], inputs.device)
                teacher = self._teacher[0](inputs, self.teacher_layers)
            # Without autocast: squares in float16 overflow.
            with torch.autocast(inputs.device.type, enabled=False):
                for layer, teacher_layer in zip(self.layers, self.teacher_layers, strict=True):
                    parts[f"{layer}_loss"].append(distances(student[layer].float(), teacher[teacher_layer].float()))
        return {name: self.beta / 2 * torch.cat(values).mean() for name, values in parts.items()}

    @torch.no_grad()
    def on_train_start(self, index: Index, devices: Devices) -> None:
        """Prepare the task, and measure the transfer loss of uniform attention."""
        super().on_train_start(index, devices)
        ids = spaced_ids(index)
        ids = ids[: len(ids) // 2 * 2] or ids  # tasks that take images in pairs
        schedule = self.spec.schedule
        keys = sequential_keys(ids, schedule.micro_batch_size or schedule.batch_size)
        was_training = self.training
        self.eval()
        total = torch.zeros((), dtype=torch.float64)
        for batch in load_batches(
            index, self.val_transform, keys, seed=self.spec.seed, workers=devices.workers, pin=devices.cuda
        ):
            batch = batch.to(devices.device)
            with calls_of(self.backbone, self.layers) as calls:
                self.task(batch, batch.rng(self.spec.seed))
            uniform = [(x, {name: torch.ones_like(value) for name, value in maps.items()}) for x, maps in calls]
            total += torch.stack(list(self.transfer(uniform).values())).sum().cpu() * len(batch)
        self.train(was_training)
        self.uniform_transfer.copy_(total / len(ids))


@contextmanager
def calls_of(backbone: Backbone, layers: Sequence[str]) -> Iterator[list[Call]]:
    """Record the inputs of a backbone and these layers of each forward pass, whatever layers its caller requests."""
    calls: list[Call] = []

    def request(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        x, requested = (*args, *kwargs.values(), None)[:2]
        return (x, [*(backbone.layers[-1:] if requested is None else requested), *layers]), {}

    def record(_: nn.Module, args: tuple[Any, ...], output: dict[str, Tensor]) -> None:
        calls.append((args[0], {layer: output[layer] for layer in layers}))

    hooks = [backbone.register_forward_pre_hook(request, with_kwargs=True), backbone.register_forward_hook(record)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def distances(student: Tensor, teacher: Tensor) -> Tensor:
    """Distance of the normalized attention maps, divided by the number of locations.

    The attention of a map that is zero everywhere is zero. The gradient at a distance of zero is zero.

    Args:
        student, teacher: (N, C, H, W) each; the larger one's attention is average-pooled to the smaller size.

    Returns:
        (N,), between 0 and sqrt(2) / locations.
    """
    pair = match_spatial_size(*(x.square().sum(1, keepdim=True) for x in (student, teacher)))
    q_student, q_teacher = (F.normalize(x.flatten(1)) for x in pair)
    return torch.linalg.vector_norm(q_student - q_teacher, dim=1) / q_student.shape[1]
