"""The entries of each section of a configuration file."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from ssltransfer.config.backbones import AnyBackbone, Exported
from ssltransfer.config.backbones.exported import SUFFIXES, with_exported_backbone
from ssltransfer.config.base import SCHEDULE_EXAMPLE, InputFile, Spec, expand_variables, explain
from ssltransfer.config.formats import AnyDataset
from ssltransfer.config.methods import AnyMethod, AttentionTransfer
from ssltransfer.config.protocols import PATCHES, AnyProtocol, Pool
from ssltransfer.config.published_weights import weights_record
from ssltransfer.config.schedule import Schedule
from ssltransfer.config.tasks import AnyTask, Imported, MultiTask, Pretrained, TaskSpec
from ssltransfer.config.weights_metadata import backbone_of
from ssltransfer.errors import UserError


def _reject_run_suffix(name: str) -> str:
    """`<name>.run.json` holds run information, next to `<name>.json`."""
    if name.endswith(".run"):
        raise ValueError("a name must not end in .run")
    return name


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"), AfterValidator(_reject_run_suffix)]

# Formats of exported models: tensors, then networks.
EXPORT_SUFFIXES = (".pth", ".safetensors", *SUFFIXES)

INIT = Field(
    None,
    description="Model whose backbone the training starts from, of the same architecture and size; default: random "
    "weights.",
)
VAL_KNN = Field(
    None,
    ge=1,
    description="With each validation, also log the accuracy of so many nearest neighbors among the labeled images of "
    "`val`, as `val_knn`. The trained weights do not depend on it.",
)


class NamedSpec(Spec):
    """An entry with a name; a raised `version` invalidates all results of its stage."""


class Pretext(NamedSpec):
    """A model trained without labels, imported or untrained."""

    task: AnyTask
    backbone: AnyBackbone
    data: str | None = None
    val: str | None = Field(None, description="Validation dataset: loss and accuracy on it are logged.")
    schedule: Schedule | None = None
    val_knn: int | None = VAL_KNN
    seed: int = 0
    snapshots: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="Steps after which the backbone is saved, as a model called NAME@STEP."
    )
    init: str | None = INIT

    @property
    def parts(self) -> dict[str, Pretext]:
        """Each task of a multi-task pretext as a pretext of its own; for other tasks {"": self}.

        Raises:
            ValueError: a task has no data, or its schedule is invalid.
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
        """All training and validation datasets."""
        named = (data for part in self.parts.values() for data in (part.data, part.val) if data)
        return tuple(dict.fromkeys(named))

    @property
    def task_datasets(self) -> tuple[str, ...]:
        """Datasets of the tasks of a multi-task pretext other than its own `data` and `val`."""
        return tuple(name for name in self.datasets if name not in (self.data, self.val))

    @model_validator(mode="before")
    @classmethod
    def _with_backbone_of_file(cls, content: Any) -> Any:
        """Published weights, and imported ones of this package, know their backbone."""
        task = content.get("task") if isinstance(content, dict) and "backbone" not in content else None
        if isinstance(task, dict) and task.get("name") == "pretrained" and isinstance(task.get("weights"), str):
            weights = Pretrained.model_validate(task).weights
            assert weights is not None
            try:
                record = weights_record(weights)
            except UserError as error:
                raise ValueError(f"task.{str(error).rstrip('.')}") from None
            library = weights.partition("/")[0]
            tag = f".{record.tag}" if library == "timm" else ""
            return content | {"backbone": {"name": library, "model": record.model + tag, "img_size": record.img_size}}
        if not isinstance(task, dict) or task.get("name") != "imported" or "file" not in task:
            return content
        file = InputFile.model_validate(task["file"]).location
        if (backbone := backbone_of(file)) is None:
            why = (
                "does not contain it, as .safetensors files of this package do" if file.is_file() else "does not exist"
            )
            raise ValueError(f"set `backbone`: {file} {why}")
        return content | {"backbone": backbone}

    # pydantic calls the validator that is defined last first.
    @model_validator(mode="before")
    @classmethod
    def _with_exported_network(cls, content: Any) -> Any:
        """The backbone of an exported network gets its file from the task, and its view from a card beside it."""
        task = content.get("task") if isinstance(content, dict) else None
        if not isinstance(task, dict) or task.get("name") != "imported" or "file" not in task:
            return content
        exported = InputFile.model_validate(task["file"]).location.suffix in SUFFIXES
        return with_exported_backbone(content, task["file"]) if exported else content

    @model_validator(mode="after")
    def _complete(self) -> Pretext:
        if self.task.is_trainable and self.schedule is None:
            raise ValueError(f"task {self.task.name} is trained: set `schedule`, such as {SCHEDULE_EXAMPLE}")
        if (self.task.needs_data or getattr(self.task, "data_dependent_init", False)) and self.data is None:
            raise ValueError(f"task {self.task.name} needs images: set `data`")
        if isinstance(self.task, Pretrained):
            self.task.weights_for(self.backbone)
        if isinstance(self.backbone, Exported) != (isinstance(self.task, Imported) and self.task.is_exported):
            raise ValueError("backbone exported and a .pt2 or .onnx file of the task imported must be used together")
        if not isinstance(self.backbone, Exported) and self.backbone.is_network != self.task.is_network:
            raise ValueError("task hog and backbone hog-words must be used together")
        if isinstance(self.task, MultiTask):
            self._check_multi_task(self.task)
        if self.init is not None and not self.task.is_trainable:
            raise ValueError(f"task {self.task.name} is not trained and has no initial weights; remove `init`")
        self._check_snapshots()
        if self.val_knn and (not self.val or not self.task.is_trainable or isinstance(self.task, MultiTask)):
            raise ValueError("val_knn needs a single task that is trained, and a validation dataset: set `val`")
        return self

    def _check_snapshots(self) -> None:
        if not self.snapshots:
            return
        if not self.task.is_trainable:
            raise ValueError(f"task {self.task.name} is not trained and has no snapshots")
        if list(self.snapshots) != sorted(set(self.snapshots)):
            raise ValueError("snapshots must be in ascending order")
        last = self.schedule.steps if self.schedule else None
        if last is not None and self.snapshots[-1] >= last:
            raise ValueError(f"snapshots must be before the last step, {last}, which is the model itself")
        if (
            isinstance(self.task, MultiTask)
            and self.task.synchronous
            and any(step % len(self.parts) for step in self.snapshots)
        ):
            raise ValueError(f"synchronous: snapshots must be multiples of the {len(self.parts)} tasks")

    def _check_multi_task(self, task: MultiTask) -> None:
        assert self.schedule is not None
        if self.schedule.steps is None:
            raise ValueError("tasks have epochs of different lengths: set `steps` of the schedule instead of `epochs`")
        parts = self.parts
        if task.synchronous and self.schedule.steps % len(parts):
            raise ValueError(f"synchronous: {self.schedule.steps} steps are not a multiple of the {len(parts)} tasks")
        if task.synchronous and any(part.schedule and part.schedule.sync_bn for part in parts.values()):
            raise ValueError("synchronous: tasks on separate devices have separate norms; remove sync_bn")
        if task.l1_layer_mix is not None and not (
            self.backbone.supports_layer_mix and self.backbone.spatial_layers[-1] == "block3"
        ):
            raise ValueError("l1_layer_mix needs a backbone that ends with block3, such as resnet101-v2")


class Features(NamedSpec):
    """Features of a layer for every image of a dataset, or vectors of a file that was made elsewhere."""

    version = 2  # patches are pooled before their mean is taken
    model: str = ""
    layer: str = ""
    file: InputFile | None = Field(
        None,
        description="Instead of model and layer: a .parquet file (columns path, and lists of numbers) or .npz file "
        "(arrays path, and vectors of shape (N, D)), such as one of `ssltransfer embed`. Paths start from the root of "
        "the dataset.",
    )
    pool: Pool | None = None
    patches: bool = Field(False, description=PATCHES)
    precision: Literal["float16", "float32"] = "float16"
    compression: Literal["zstd"] | None = Field(
        None, description="zstd (level 1): half the disk, a third of the speed."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Features:
        if self.file is None and not (self.model and self.layer):
            raise ValueError("set `model` and `layer`, or `file` for features that were made elsewhere")
        if self.file and (self.model or self.layer or self.pool or self.patches):
            raise ValueError("a file has features already; remove `model`, `layer`, `pool` and `patches`, or `file`")
        return self


class Cluster(NamedSpec):
    """k-means clustering of the features of a dataset."""

    features: str
    data: str
    k: int = Field(ge=2)
    max_iter: int = Field(50, ge=1)
    init: Literal["random", "k-means++", "pca"] = Field(
        "pca", description="pca: k-means++ and 20 iterations in 64 principal components first; faster, lower objective."
    )
    l2_normalize: bool = Field(False, description="l2-normalize the features first.")
    spherical: bool = Field(False, description="Spherical k-means: features and centroids have the length 1 (cosine).")
    levels: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (), description="Clusters of the centroids, level by level: [1000, 100] groups the k clusters into 1000."
    )
    resample: int = Field(
        0, ge=0, description="Resampling steps of each level: k-means again, on the points nearest to each centroid."
    )
    resample_points: int | None = Field(
        None, ge=1, description="Points per cluster in these steps; default: a tenth of the mean, at least 10."
    )
    tolerance: float = Field(
        1e-4, ge=0, description="Stop when a smaller fraction of points moves or of the objective is gained."
    )
    empty_cluster: Literal["farthest", "keep", "error"] = Field(
        "farthest", description="farthest: restart at the point farthest from its centroid; keep: keep the centroid."
    )
    backend: Literal["torch", "faiss"] = "torch"
    seed: int = 0
    store_features: bool = Field(
        True,
        exclude=True,  # the clusters do not depend on it
        description="Keep the features of other datasets; if false, they are labeled while they are computed.",
    )

    @property
    def normalizes(self) -> bool:
        """Whether points are divided by their length."""
        return self.l2_normalize or self.spherical

    @model_validator(mode="after")
    def _fewer_each_level(self) -> Self:
        for fine, coarse in pairwise((self.k, *self.levels)):
            if coarse >= fine:
                raise ValueError(f"levels: {coarse} clusters of {fine} centroids; each level has fewer than the last")
        return self


class Student(NamedSpec):
    """A network trained on pseudo-labels, by a teacher, or on true labels."""

    method: AnyMethod
    data: str
    backbone: AnyBackbone
    schedule: Schedule
    val: str | None = None
    val_knn: int | None = VAL_KNN
    seed: int = 0
    init: str | None = INIT

    @model_validator(mode="after")
    def _has_val(self) -> Self:
        if self.val_knn and not self.val:
            raise ValueError("val_knn needs a validation dataset: set `val`")
        return self

    @property
    def datasets(self) -> tuple[str, ...]:
        """Training dataset, and validation dataset if there is one."""
        return (self.data, self.val) if self.val else (self.data,)

    @property
    def pretext(self) -> Pretext | None:
        """The pretext whose loss attention transfer trains; None for other methods."""
        if not isinstance(self.method, AttentionTransfer):
            return None
        same = {key: getattr(self, key) for key in ("data", "backbone", "schedule", "val", "seed")}
        return Pretext(task=self.method.task, **same)


class EvaluationSpec(NamedSpec):
    """A protocol with its training and test datasets, on which a metric depends besides the model."""

    protocol: AnyProtocol
    train: str = Field("", description="Training dataset; not for protocols without training.")
    test: str
    seeds: tuple[int, ...] = Field((0,), min_length=1)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Training dataset, if there is one, and test dataset."""
        return (self.train, self.test) if self.train else (self.test,)

    @model_validator(mode="after")
    def _trains(self) -> EvaluationSpec:
        if self.protocol.needs_train != bool(self.train):
            what = "set `train`" if self.protocol.needs_train else "only `test` is used; remove `train`"
            raise ValueError(f"{self.protocol.name}: {what}")
        return self


class Evaluation(EvaluationSpec):
    """An evaluation of models and of their baselines."""

    models: tuple[str, ...] = Field(min_length=1, description="Names or patterns such as cc-k*.")
    baselines: tuple[Literal["random", "rescaled", "supervised"], ...] = Field(
        ("random",),
        description="Rows added for each backbone. supervised: trained on labels, not for imported teachers; rescaled: "
        "random weights with data-dependent initialization, if the backbone supports it.",
    )
    supervised_data: str | None = Field(
        None, description="Dataset of the supervised baseline; default: `train`, or the first labeled of the models."
    )

    @property
    def measurement(self) -> EvaluationSpec:
        """This entry without its models: adding a model does not invalidate the others' metrics."""
        return EvaluationSpec(protocol=self.protocol, train=self.train, test=self.test, seeds=self.seeds)


class Export(Spec):
    """A file of a model for use without this package. Its suffix selects the format."""

    model: str
    layer: str | None = Field(None, description="Layer that a .pt2 or .onnx file computes; default: the last.")

    @model_validator(mode="before")
    @classmethod
    def _of_a_model(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value


class Table(Spec):
    """A table of the report: one row per model, one column per evaluation (or evaluation:metric)."""

    title: str
    rows: tuple[str, ...] = Field((), description="Models or patterns; default: all with a value.")
    columns: tuple[str, ...]
    aggregate: dict[str, str] = Field(
        {}, description="Row -> pattern of models, such as seeds, that it replaces by mean and standard deviation."
    )
    reference: str | None = Field(None, description="A table of the papers, such as noroozi2018-table3.")
    reference_rows: dict[str, str] = Field({}, description="Model -> row of the reference table.")
    reference_columns: dict[str, str] = Field({}, description="Column -> column of the reference table.")


class Figure(Spec):
    """A figure of the report: a panel per column, with lines of means and standard deviations over models."""

    title: str
    columns: tuple[str, ...] = Field(min_length=1, description="Evaluations, or evaluation:metric.")
    lines: dict[str, dict[float, str]] = Field({}, description="Line -> x -> model, or a pattern of seeds.")
    layers: dict[str, str] = Field({}, description="Instead of lines: line -> model or pattern, over the layers.")
    levels: dict[str, str] = Field({}, description="Horizontal line -> model or pattern.")
    against: str | None = Field(
        None, description="Scatter plot: x is this evaluation[:metric], or training:metric. The x of lines are labels."
    )
    heat_map: bool = Field(False, description="Heat map: a row per line, a column per x.")
    x: str = Field("", description="Label of the x axis.")
    y: str = Field("", description="Label of the rows of a heat map.")
    log_x: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.lines) == bool(self.layers):
            raise ValueError(f"figure {self.title!r}: give either lines or layers")
        if self.layers and (self.levels or self.log_x):
            raise ValueError(f"figure {self.title!r}: levels and log_x belong to lines over numbers")
        if self.heat_map and (self.levels or self.log_x or self.against):
            raise ValueError(f"figure {self.title!r}: a heat map has no levels, log_x or against")
        if self.against and self.layers:
            raise ValueError(f"figure {self.title!r}: a scatter plot needs lines over numbers")
        return self

    @property
    def patterns(self) -> list[str]:
        """All models and patterns."""
        return [
            *(p for line in self.lines.values() for p in line.values()),
            *self.layers.values(),
            *self.levels.values(),
        ]


class Claim(Spec):
    """A statement on two groups of models, which the report decides for each column: yes, no or not resolved."""

    title: str = Field(description="The statement.")
    columns: tuple[str, ...] = Field(min_length=1, description="Evaluations.")
    models: str = Field(description="Model, or a pattern of seeds.")
    better_than: str | None = Field(None, description="Model or pattern; the difference exceeds two standard errors.")
    not_worse_than: str | None = Field(None, description="The same; the difference is not negative.")
    close_to: str | None = Field(None, description="The same; the difference is at most `margin`.")
    margin: float = Field(0.0, ge=0, description="In the unit of the metric.")

    @model_validator(mode="after")
    def _one_relation(self) -> Self:
        if sum(one is not None for one in (self.better_than, self.not_worse_than, self.close_to)) != 1:
            raise ValueError(f"claim {self.title!r}: give one of better_than, not_worse_than and close_to")
        if (self.close_to is None) != (self.margin == 0):
            raise ValueError(f"claim {self.title!r}: close_to needs a margin, and the others have none")
        return self

    @property
    def others(self) -> str:
        """The models that `models` are compared with."""
        return self.better_than or self.not_worse_than or self.close_to or ""


class Report(Spec):
    """Options of the report."""

    title: str = "Transfer of self-supervised knowledge"
    tables: tuple[Table, ...] = ()
    claims: tuple[Claim, ...] = Field((), description="Statements that the report decides by the results.")
    figures: tuple[Figure, ...] = Field((), description="Drawn in the report, and as files in report/figures.")
    montage_clusters: int = Field(12, ge=1, description="Clusters in a montage.")
    montage_images: int = Field(11, ge=1, description="Images per cluster, nearest to the centroid first.")


def _none_as_empty(value: object) -> object:
    return {} if value is None else value


def _one_spelling(path: str) -> str:
    """The path without "~", variables, "." and a slash at its end: Snakemake knows an output by its path's text."""
    path = expand_variables(path)
    if set("{}") & set(path):
        raise ValueError("it contains a brace, which is a wildcard in Snakemake; rename it")
    return os.path.normpath(Path(path).expanduser())


class ConfigFile(Spec):
    """A configuration file after sweeps are expanded."""

    results: Annotated[str, AfterValidator(_one_spelling)] = Field(
        "results", min_length=1, description="Output directory."
    )
    datasets: Annotated[dict[Name, AnyDataset], BeforeValidator(_none_as_empty)] = {}
    pretexts: Annotated[dict[Name, Pretext], BeforeValidator(_none_as_empty)] = {}
    features: Annotated[dict[Name, Features], BeforeValidator(_none_as_empty)] = {}
    clusters: Annotated[dict[Name, Cluster], BeforeValidator(_none_as_empty)] = {}
    students: Annotated[dict[Name, Student], BeforeValidator(_none_as_empty)] = {}
    evaluations: Annotated[dict[Name, Evaluation], BeforeValidator(_none_as_empty)] = {}
    report: Report = Report()
    exports: Annotated[dict[Name, Export], BeforeValidator(_none_as_empty)] = Field(
        {}, description="Files in export/ of the output directory: NAME.pth, .safetensors, .pt2 or .onnx -> model."
    )
