"""One training step of one task: forward, backward, optimizer step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssltransfer.config.schedule import Schedule
from ssltransfer.data.loader import Batch
from ssltransfer.models.backbone import Backbone
from ssltransfer.training.checkpoint import Checkpoint
from ssltransfer.training.ddp import DataParallel
from ssltransfer.training.devices import Devices
from ssltransfer.training.pending import Pending
from ssltransfer.training.sync_bn import convert_sync_bn
from ssltransfer.training.task import Task


class Trainer:
    """A task with its optimizer. The task is moved to the device and set to training mode.

    With a checkpoint, gradients and metrics are averaged over all processes, which share each batch, and its `signal`
    is set when any of them received one.
    """

    def __init__(
        self, task: Task, schedule: Schedule, seed: int, devices: Devices, checkpoint: Checkpoint | None = None
    ):
        self.task, self.schedule, self.seed, self.devices = task, schedule, seed, devices
        task.to(devices.device).to(memory_format=torch.channels_last)
        task.train()
        # With images of ever new sizes cuDNN would try all its algorithms for each size.
        torch.backends.cudnn.benchmark = task.transform.padding is None
        if schedule.sync_bn and devices.world > 1:
            convert_sync_bn(task)
        if schedule.compile:
            # Tasks have Python code that torch cannot compile, such as the hashes of random numbers.
            for module in task.modules():
                if isinstance(module, Backbone):
                    module.compile()
        self.optimizer = build_optimizer(task, schedule)
        self.scaler = torch.amp.GradScaler(
            devices.device.type, enabled=devices.dtype(schedule.precision) == torch.float16
        )
        self.scaler.scale(torch.zeros((), device=devices.device))  # creates the state that a checkpoint stores
        self.data_parallel = DataParallel(task, checkpoint) if checkpoint and devices.world > 1 else None

    def forward_backward(self, batch: Batch) -> Pending:
        """Gradients of the mean loss of a batch, accumulated over its micro-batches.

        Returns:
            Mean values of the batch; in data-parallel training of the shares of all processes.
        """
        self.optimizer.zero_grad(set_to_none=True)
        means: dict[str, Tensor] = {}
        micro_batches = batch.split(self.schedule.micro_batch_size)
        for number, micro_batch in enumerate(micro_batches, start=1):
            with self.devices.autocast(self.schedule.precision):
                if self.data_parallel:
                    outputs = self.data_parallel.forward(micro_batch, self.seed, reduce=number == len(micro_batches))
                else:
                    outputs = self.task(micro_batch, micro_batch.rng(self.seed))
            weight = len(micro_batch) / len(batch)
            self.scaler.scale(outputs["loss"] * weight).backward()
            for name, value in outputs.items():
                means[name] = means.get(name, torch.zeros((), device=value.device)) + value.detach().float() * weight
        values = torch.stack(list(means.values()))
        if self.data_parallel:
            values = self.data_parallel.all_reduce_metrics(values)
        return Pending(list(means), values)

    def optimizer_step(self, lr: float) -> None:
        """Update the weights with the gradients, at a learning rate times the multiplier of each parameter group."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_mult"]
        if self.schedule.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.task.parameters(), self.schedule.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def skips_overflow(self) -> bool:
        """Whether a loss that is not finite is an overflow of float16, whose step the gradient scaler skips.

        After each it halves its scale. At a scale below 1 the loss itself is not finite.
        """
        return self.scaler.is_enabled() and self.scaler.get_scale() >= 1

    def pop_grads(self) -> list[Tensor | None]:
        """The gradients of all parameters, which are then cleared."""
        gradients = [parameter.grad for parameter in self.task.parameters()]
        self.optimizer.zero_grad(set_to_none=True)
        return gradients

    def set_grads(self, gradients: Sequence[Tensor | None]) -> None:
        """Set the gradients of all parameters."""
        for parameter, gradient in zip(self.task.parameters(), gradients, strict=True):
            parameter.grad = gradient

    def state_dict(self) -> dict[str, Any]:
        """State of task, optimizer and gradient scaler."""
        scaler = {"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {}
        return {"task": self.task.state_dict(), "optimizer": self.optimizer.state_dict(), **scaler}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.task.load_state_dict(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        if "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])


def build_optimizer(task: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """The optimizer of a schedule. Biases and norms may have their own learning rate and weight decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in task.named_parameters():
        if not parameter.requires_grad:
            continue
        lr_mult = schedule.bias_lr_mult if name.endswith("bias") else 1.0
        decay = 0.0 if parameter.ndim < 2 and not schedule.decay_norm_and_bias else schedule.weight_decay
        groups.setdefault((lr_mult, decay), []).append(parameter)
    settings = [
        {"params": parameters, "weight_decay": decay, "lr_mult": lr_mult}
        for (lr_mult, decay), parameters in groups.items()
    ]
    fused = next(task.parameters()).is_cuda or None  # one kernel per step; None: torch's default on a CPU
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(
            settings, lr=schedule.lr, momentum=schedule.momentum, nesterov=schedule.nesterov, fused=fused
        )
    if schedule.optimizer == "rmsprop":
        return torch.optim.RMSprop(settings, lr=schedule.lr, alpha=0.9, eps=1e-3, momentum=schedule.momentum)
    optimizer = torch.optim.Adam if schedule.optimizer == "adam" else torch.optim.AdamW
    return optimizer(settings, lr=schedule.lr, betas=(schedule.momentum, 0.999), fused=fused)
