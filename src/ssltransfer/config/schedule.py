"""Training schedule of pretexts, students, baselines and probes."""

from math import cos, pi
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ssltransfer.config.base import Spec

# `epochs: auto`: those of CompRess on ImageNet (protocols 3.3). Fewer images have more epochs, as many as make
# FEWEST_UPDATES, up to a limit. More images are seen less often, as many in all as on ImageNet. Chosen.
AUTO_EPOCHS, MOST_EPOCHS = 130, 1000
FEWEST_UPDATES = 20_000
MOST_IMAGES = AUTO_EPOCHS * 1_281_167
AUTO_WARMUP = 0.02  # of the updates
UPDATES_PER_EPOCH, SMALLEST_BATCH = 20, 16  # the batch is halved until an epoch has so many, or it would be smaller

Precision = Literal["auto", "float32", "bfloat16", "float16"]


class Schedule(Spec):
    """Optimizer, learning rate and length of a training, as functions of the global step.

    Lengths are in epochs or in steps, whichever is set. `batch_size` is global: it does not depend on the number of
    devices.
    """

    epochs: Annotated[float, Field(gt=0)] | Literal["auto"] | None = Field(
        None,
        description="auto: by the number of images. 130, for fewer images as many as make 20,000 updates but at most "
        "1,000, for more than ImageNet's as many images in all. The first 2 % of the updates are a warm-up, and "
        "batches are smaller if an epoch would have fewer than 20.",
    )
    steps: int | None = Field(None, ge=1)
    batch_size: int = Field(256, ge=1, description="Images per update, over all devices.")
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    lr: float = Field(0.01, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(5e-4, ge=0)
    decay_norm_and_bias: bool = Field(True, description="Whether weight decay also acts on biases and norms.")
    bias_lr_mult: float = Field(1.0, gt=0, description="Learning-rate multiplier of biases (Caffe: 2).")
    lr_schedule: Literal["step", "cosine", "constant"] = "step"
    milestones: tuple[float, ...] = Field((), description="When lr is multiplied by `gamma`; same unit.")
    step_size: float | None = Field(None, gt=0, description="Instead of `milestones`: every so many epochs or steps.")
    gamma: float = Field(0.1, gt=0, lt=1)
    warmup: float = Field(0.0, ge=0, description="Length of a linear warm-up; same unit.")
    clip_grad_norm: float | None = Field(None, gt=0, description="Maximum norm of the whole gradient.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Images per forward pass; gradients of a batch are accumulated."
    )
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU.")
    compile: bool = Field(False, description="Compile the backbone with torch.compile (takes minutes).")
    sync_bn: bool = Field(False, description="Synchronize batch normalization over all devices.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        if self.epochs == "auto" and (self.milestones or self.step_size or self.warmup):
            raise ValueError(
                "epochs: auto has a warm-up of its own, and no milestones; remove `warmup`, `milestones` and "
                "`step_size`, or state the epochs"
            )
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise ValueError("nesterov needs the optimizer sgd with a momentum; remove it")
        if self.milestones and self.step_size:
            raise ValueError("give milestones or step_size, not both")
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}"
            )
        return self

    def scaled_to_full_set(self, ratio: float) -> Self:
        """The schedule for a subset, `ratio` times smaller than the full set, with as many updates."""
        if self.steps is not None or ratio == 1:
            return self
        assert self.epochs != "auto"  # not for probes
        longer = {"epochs": self.epochs, "warmup": self.warmup, "step_size": self.step_size}
        update = {name: length * ratio for name, length in longer.items() if length is not None}
        return self.model_copy(update=update | {"milestones": tuple(drop * ratio for drop in self.milestones)})

    def for_images(self, samples: int) -> Self:
        """The schedule for a dataset of `samples` images, in which nothing is auto."""
        if self.epochs != "auto":
            return self
        batch = self.batch_size
        while batch % 2 == 0 and batch >= 2 * SMALLEST_BATCH and samples < UPDATES_PER_EPOCH * batch:
            batch //= 2
        fewest = min(FEWEST_UPDATES, MOST_EPOCHS * samples / batch)
        steps = max(1, round(min(max(AUTO_EPOCHS * samples / batch, fewest), MOST_IMAGES / batch)))
        micro = self.micro_batch_size if self.micro_batch_size and batch % self.micro_batch_size == 0 else None
        update = {"epochs": None, "steps": steps, "batch_size": batch, "micro_batch_size": micro}
        return self.model_copy(update={**update, "warmup": AUTO_WARMUP * steps})

    def stated(self, samples: int) -> dict[str, object]:
        """For a manifest: the numbers that `auto` stands for; empty without it."""
        if self.epochs != "auto":
            return {}
        found = self.for_images(samples)
        return {"schedule": {key: getattr(found, key) for key in ("steps", "batch_size", "warmup")}}

    def total_steps(self, samples: int) -> int:
        """Number of updates on a data set of `samples` images."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None and self.epochs != "auto"
        return max(1, round(self.epochs * samples / self.batch_size))

    def lr_at(self, step: int, samples: int) -> float:
        """Learning rate of global step `step` (0-based)."""
        unit = 1.0 if self.steps is not None else samples / self.batch_size
        time, total = step / unit, self.total_steps(samples) / unit
        if time < self.warmup:
            return self.lr * (step + 1) / (self.warmup * unit)
        if self.lr_schedule == "cosine":
            return self.lr * 0.5 * (1.0 + cos(pi * time / total))
        if self.lr_schedule == "constant":
            return self.lr
        # 1e-9: rounding of step / unit must not delay a milestone by a step.
        milestones = sum(time + 1e-9 >= drop for drop in self.milestones)
        if self.step_size:
            milestones = int((time + 1e-9) / self.step_size)
        return float(self.lr * self.gamma**milestones)
