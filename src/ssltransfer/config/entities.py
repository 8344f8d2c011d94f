"""The named things of a configuration: one class a section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from ssltransfer.config.backbones import AnyBackbone
from ssltransfer.config.base import Spec, explain
from ssltransfer.config.formats import AnyDataset
from ssltransfer.config.methods import AnyMethod, AttentionTransfer
from ssltransfer.config.protocols import PATCHES, AnyProtocol, Pool
from ssltransfer.config.schedule import Schedule
from ssltransfer.config.tasks import AnyTask, MultiTask, TaskSpec


def _reject_run_suffix(name: str) -> str:
    """`<name>.run.json` is where the cost of a measurement lies."""
    if name.endswith(".run"):
        raise ValueError("a name must not end in .run")
    return name


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"), AfterValidator(_reject_run_suffix)]


class NamedSpec(Spec):
    """Something with a name, a rule and a folder; `version` is the stage's own."""


class Pretext(NamedSpec):
    """A model made without labels (or read from a file)."""

    task: AnyTask
    backbone: AnyBackbone
    data: str | None = None
    val: str | None = Field(None, description="Dataset on which the loss is also measured.")
    schedule: Schedule | None = None
    seed: int = 0
    snapshots: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="Steps after which a copy of the backbone is kept: a model of its own, called NAME@STEP."
    )

    @property
    def parts(self) -> dict[str, Pretext]:
        """What is trained: each of several tasks as a pretext of its own, by name; or this one alone, without one.

        Raises:
            ValueError: a task lacks data, or its schedule cannot be.
        """
        if not isinstance(self.task, MultiTask):
            return {"": self}
        return {name: self._part(name, member) for name, member in self.task.tasks.items()}

    def _part(self, name: str, member: TaskSpec) -> Pretext:
        schedule = self.schedule.model_dump(exclude_unset=True) if self.schedule else {}
        content = {
            "task": member.task,
            "backbone": self.backbone,
            "data": member.data or self.data,
            "val": member.val or (None if member.data else self.val),
            "schedule": schedule | member.schedule,
            "seed": self.seed,
        }
        try:
            return Pretext.model_validate(content)
        except ValidationError as error:
            raise ValueError(explain(error, f"tasks.{name}", {"Pretext": Pretext}).rstrip(".")) from None

    @property
    def datasets(self) -> tuple[str, ...]:
        """Every dataset that is trained or measured on."""
        named = (data for part in self.parts.values() for data in (part.data, part.val) if data)
        return tuple(dict.fromkeys(named))

    @property
    def task_datasets(self) -> tuple[str, ...]:
        """Datasets of several tasks that are not the pretext's own."""
        return tuple(name for name in self.datasets if name not in (self.data, self.val))

    @model_validator(mode="after")
    def _complete(self) -> Pretext:
        if self.task.is_trainable and self.schedule is None:
            raise ValueError(f"task {self.task.name} is trained: give a schedule")
        if (self.task.needs_data or getattr(self.task, "data_dependent_init", False)) and self.data is None:
            raise ValueError(f"task {self.task.name} learns from images: give data")
        if (self.backbone.name == "hog-words") != (self.task.name == "hog"):
            raise ValueError("task hog and backbone hog-words belong together")
        if isinstance(self.task, MultiTask):
            self._check_multi_task(self.task)
        self._check_snapshots()
        return self

    def _check_snapshots(self) -> None:
        if not self.snapshots:
            return
        if not self.task.is_trainable:
            raise ValueError(f"task {self.task.name} has no steps to keep snapshots of")
        if list(self.snapshots) != sorted(set(self.snapshots)):
            raise ValueError("snapshots must rise")
        last = self.schedule.steps if self.schedule else None
        if last is not None and self.snapshots[-1] >= last:
            raise ValueError(f"snapshots must be taken before the last step, {last}: that is the model itself")
        if getattr(self.task, "synchronous", False) and any(step % len(self.parts) for step in self.snapshots):
            raise ValueError(
                f"synchronous: a snapshot is taken after a whole round, a multiple of {len(self.parts)} steps"
            )

    def _check_multi_task(self, task: MultiTask) -> None:
        assert self.schedule is not None
        if self.schedule.steps is None:
            raise ValueError("several tasks have no epochs in common: give the length of the schedule in steps")
        parts = self.parts
        if task.synchronous and self.schedule.steps % len(parts):
            raise ValueError(f"synchronous: {self.schedule.steps} steps are no multiple of {len(parts)} tasks")
        if task.synchronous and any(part.schedule and part.schedule.sync_bn for part in parts.values()):
            raise ValueError("synchronous: tasks on devices of their own have norms of their own; leave sync_bn out")
        if task.l1_layer_mix is not None and (
            not self.backbone.name.endswith("-v2") or getattr(self.backbone, "block4", False)
        ):
            raise ValueError("l1_layer_mix mixes the units of block3, with which resnet101-v2 ends: name that backbone")


class Features(NamedSpec):
    """What a layer of a model says of each image."""

    model: str
    layer: str
    pool: Pool | None = None
    patches: bool = Field(False, description=PATCHES)
    precision: Literal["float16", "float32"] = "float16"
    compression: Literal["zstd"] | None = Field(
        None, description="zstd (level 1): half the disk, a third of the speed."
    )


class Cluster(NamedSpec):
    """k-means of features over all images of a dataset."""

    features: str
    data: str
    k: int = Field(ge=2)
    max_iter: int = Field(50, ge=1)
    init: Literal["random", "k-means++", "pca"] = Field(
        "pca", description="pca: k-means++ and 20 iterations among 64 principal components first; faster, ends lower."
    )
    l2_normalize: bool = Field(False, description="Divide each feature vector by its length first.")
    tolerance: float = Field(1e-4, ge=0, description="Stop when a smaller share moves, or the objective falls by less.")
    empty_cluster: Literal["farthest", "keep", "error"] = Field(
        "farthest",
        description="An empty cluster restarts at the farthest point, keeps its center, or is an error.",
    )
    backend: Literal["torch", "faiss"] = "torch"
    seed: int = 0
    store_features: bool = Field(
        True,
        exclude=True,  # it does not decide what the clusters are
        description="Whether features of other datasets are kept; if not, these are labelled while they are computed.",
    )


class Student(NamedSpec):
    """A network that learns from labels made by a clustering, or from true ones."""

    method: AnyMethod
    data: str
    backbone: AnyBackbone
    schedule: Schedule
    val: str | None = None
    seed: int = 0

    @property
    def pretext(self) -> Pretext | None:
        """The pretext that it is beside its teacher, where it learns a task's own loss."""
        if not isinstance(self.method, AttentionTransfer):
            return None
        same = {key: getattr(self, key) for key in ("data", "backbone", "schedule", "val", "seed")}
        return Pretext(task=self.method.task, **same)


class EvaluationSpec(NamedSpec):
    """One protocol on a training and a test set: what decides a number, whatever model it is taken of."""

    protocol: AnyProtocol
    train: str = Field("", description="Dataset of the training images; none for protocols that do not train.")
    test: str
    seeds: tuple[int, ...] = Field((0,), min_length=1)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Train, where the protocol does, and test."""
        return (self.train, self.test) if self.train else (self.test,)

    @model_validator(mode="after")
    def _trains(self) -> EvaluationSpec:
        if self.protocol.needs_train != bool(self.train):
            what = "give `train`" if self.protocol.needs_train else "it looks at `test` alone; leave `train` out"
            raise ValueError(f"{self.protocol.name}: {what}")
        return self


class Evaluation(EvaluationSpec):
    """A measurement of each model named; controls are added by themselves."""

    models: tuple[str, ...] = Field(min_length=1, description="Names or patterns such as cc-k*.")
    baselines: tuple[Literal["random", "rescaled", "supervised"], ...] = Field(
        ("random",),
        description="supervised: but for a file that students learn from; rescaled: a random network rescaled by the "
        "training images, for backbones that can be.",
    )
    supervised_data: str | None = Field(
        None, description="Dataset of the supervised control; default: `train` where it has one label a image."
    )

    @property
    def measurement(self) -> EvaluationSpec:
        """What is left without the list of models: another model more must not measure the others again."""
        return EvaluationSpec(protocol=self.protocol, train=self.train, test=self.test, seeds=self.seeds)


class Table(Spec):
    """A table of the report: a row for each model, a column for each evaluation (or evaluation:value)."""

    title: str
    rows: tuple[str, ...] = Field((), description="Models or patterns; default: all with a number in a column.")
    columns: tuple[str, ...]
    aggregate: dict[str, str] = Field(
        {}, description="Row -> pattern of models, such as seeds of one, of which it shows mean and spread, not each."
    )
    reference: str | None = Field(None, description="A table of the papers, such as noroozi2018-table3.")
    reference_rows: dict[str, str] = Field({}, description="Model -> row of the reference table.")
    reference_columns: dict[str, str] = Field({}, description="Column -> column of the reference table.")


class Report(Spec):
    """What the report shows beyond the rest."""

    title: str = "Transfer of self-supervised knowledge"
    tables: tuple[Table, ...] = ()
    montage_clusters: int = Field(12, ge=1, description="Clusters drawn for a montage.")
    montage_images: int = Field(11, ge=1, description="Images nearest to the center in each.")


def _none_as_empty(value: object) -> object:
    return {} if value is None else value


def _reject_braces(path: str) -> str:
    if set("{}") & set(path):
        raise ValueError("it holds a brace, which Snakemake reads as a wildcard; rename it")
    return path


class ConfigFile(Spec):
    """A whole configuration file after its sweeps are expanded."""

    results: Annotated[str, AfterValidator(_reject_braces)] = Field(
        "results", min_length=1, description="Folder of everything that is made."
    )
    datasets: Annotated[dict[Name, AnyDataset], BeforeValidator(_none_as_empty)] = {}
    pretexts: Annotated[dict[Name, Pretext], BeforeValidator(_none_as_empty)] = {}
    features: Annotated[dict[Name, Features], BeforeValidator(_none_as_empty)] = {}
    clusters: Annotated[dict[Name, Cluster], BeforeValidator(_none_as_empty)] = {}
    students: Annotated[dict[Name, Student], BeforeValidator(_none_as_empty)] = {}
    evaluations: Annotated[dict[Name, Evaluation], BeforeValidator(_none_as_empty)] = {}
    report: Report = Report()
