"""Whether files, folders and networks of a configuration are ready. Reading this module does not import torch."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ssltransfer.artifacts.archives import archive_of
from ssltransfer.artifacts.outdated import is_current
from ssltransfer.config import Config, ModelEntry
from ssltransfer.config.backbones.libraries import LibraryModel
from ssltransfer.config.base import InputFile, NameFile, Normalize
from ssltransfer.config.entities import Pretext, Student
from ssltransfer.config.methods import AttentionTransfer
from ssltransfer.config.protocols import Depth, ProtocolOptions, Segmentation
from ssltransfer.config.tasks import ForeignWeights, Jigsaw, JigsawKolesnikov, JigsawPP, Pretrained
from ssltransfer.data.permutations import permutation_set
from ssltransfer.errors import UserError


def input_problems(config: Config) -> Iterator[str]:
    """A sentence for each input or option that some job will miss or refuse.

    These are data folders, lists, proposals, sets of permutations, weights, and networks of other libraries. What has
    been made is not checked again.
    """
    for name, dataset in config.datasets.items():
        if dataset.curate:
            continue
        where = f"datasets.{name}"
        yield from _missing_files(dataset, where)
        indexed = is_current(f"{config.results}/index/{name}.parquet", dataset)
        if not indexed and not dataset.creates_root and not _exists(Path(dataset.root).expanduser()):
            yield f"{where}.root: {dataset.root}: no such folder; check the path."
    for name, pretext in config.pretexts.items():
        missing = list(_missing_files(pretext, f"pretexts.{name}"))
        yield from missing
        made = is_current(f"{config.results}/pretext/{name}/manifest.json", pretext)
        if missing or made:
            continue
        yield from _impossible_permutations(pretext, f"pretexts.{name}.task")
        if isinstance(pretext.task, ForeignWeights):
            # These modules import torch.
            if isinstance(pretext.task, Pretrained):
                from ssltransfer.tasks.pretext.pretrained import check_pretrained as check
            else:
                from ssltransfer.tasks.pretext.imported import check_weights as check
            try:
                check(pretext)
            except UserError as error:
                yield f"pretexts.{name}.task: {error}"
    for name in filter(config.has_file, config.features):
        yield from _feature_file_problems(config, name)
    for name, evaluation in config.evaluations.items():
        yield from _missing_files(evaluation, f"evaluations.{name}")
    yield from network_problems(config)
    for name in config.exports:
        if name.endswith(".onnx") and not all(map(find_spec, ("onnxscript", "onnxruntime"))):
            yield f"exports.{name}: ONNX needs the extra onnx; install ssltransfer[onnx], or use .pt2."
    for name, student in config.students.items():
        made = is_current(f"{config.results}/student/{name}/manifest.json", student)
        if isinstance(student.method, AttentionTransfer) and not made:
            teacher = student.method.teacher
            own, other = _normalization_of(student), _normalization_of(config.models[teacher])
            if own and other and own != other:
                yield (
                    f"students.{name}.method: {student.method.task.name} normalizes images by `{own}`, but the teacher "
                    f"{teacher} by `{other}`; name a teacher with the same normalization."
                )


def _exists(root: Path) -> bool:
    return root.is_dir() or archive_of(root) is not None


def _feature_file_problems(config: Config, name: str) -> Iterator[str]:
    """A sentence if the file of features is not valid, or lacks an image of a dataset that has been indexed."""
    features, where = config.features[name], f"features.{name}"
    results = config.results
    waiting = [
        data
        for data in sorted(config.datasets_of_features(name))
        if not is_current(f"{results}/features/{name}/{data}/manifest.json", features)
    ]
    missing = list(_missing_files(features, where))
    yield from missing
    if missing or not waiting:
        return
    from ssltransfer.artifacts.index import read_index  # these modules import pyarrow
    from ssltransfer.artifacts.vector_file import read_vectors

    assert features.file is not None
    try:
        vectors = read_vectors(features.file.location)
        for data in waiting:
            index = f"{results}/index/{data}.parquet"
            if config.datasets[data].format != "video" and is_current(index, config.datasets[data]):
                vectors.rows_of(read_index(Path(index)))
    except UserError as error:
        yield f"{where}.file: {error}"


def _normalization_of(model: Pretext | Student) -> Normalize | None:
    """Normalization of the images of a model before it is made; None if its options alone do not determine it."""
    if isinstance(model, Pretext):
        return model.task.normalization
    if isinstance(model.method, AttentionTransfer):
        return model.method.task.normalization
    return None if model.init else "imagenet"


def _impossible_permutations(pretext: Pretext, where: str) -> Iterator[str]:
    """A sentence for each set of permutations that its file does not have, or that is not found."""
    for part in pretext.parts.values():
        task = part.task
        if not isinstance(task, Jigsaw | JigsawKolesnikov | JigsawPP):
            continue
        if task.permutation_file or getattr(task, "target_mean_hamming", None) is not None:
            try:
                permutation_set(task)
            except UserError as error:
                yield f"{where}: {error}"


def network_problems(config: Config) -> Iterator[str]:
    """A sentence for each network that cannot be built, or that cannot process the images of its task or protocol.

    Networks of other libraries and fully convolutional ones can only be checked by building them, without memory for
    their weights.
    """
    for name, model in config.models.items():
        stage = config.model(name).stage
        if not isinstance(model.backbone, LibraryModel) or is_current(
            f"{config.results}/{stage}/{name}/manifest.json", model
        ):
            continue
        from ssltransfer.planning.networks import library_problem  # imports torch

        sizes: list[int | tuple[int, int]] = [model.backbone.img_size]
        if isinstance(model, Pretext) and model.task.is_trainable:
            sizes += [side for part in model.parts.values() for side in part.task.input_sizes(model.backbone)[1]]
        problems = (library_problem(model.backbone, size) for size in dict.fromkeys(sizes))
        if problem := next(filter(None, problems), None):
            yield f"{stage}s.{name}.backbone: {problem}"
    for name, models in config.rows.items():
        for evaluated in map(config.model, models):
            if not Path(f"{config.results}/evaluate/{name}/{evaluated.name}.json").is_file():
                yield from _protocol_problems(config.evaluations[name].protocol, evaluated, f"evaluations.{name}")


def _protocol_problems(protocol: ProtocolOptions, model: ModelEntry, where: str) -> Iterator[str]:
    if isinstance(protocol, Segmentation):
        usual = protocol.padding == Segmentation.model_fields["padding"].default
        if usual and model.backbone.stem_stride is None:
            return
        from ssltransfer.planning.networks import segmentation_problem

        if problem := segmentation_problem(model.backbone, protocol.padding):
            yield f"{where}: {model.name}: {problem}"
    elif isinstance(protocol, Depth) and isinstance(model.backbone, LibraryModel):
        from ssltransfer.planning.networks import library_problem

        if problem := library_problem(model.backbone, protocol.crop):
            yield f"{where}.protocol.crop: {problem}"


def _missing_files(value: Any, where: str) -> Iterator[str]:
    """A sentence for each input file inside a spec that cannot be read."""
    if isinstance(value, NameFile):
        try:
            value.names()
        except UserError as error:
            yield f"{where}: {error}"
    elif isinstance(value, InputFile):
        if not value.digest:
            yield f"{where}: {value.path}: no such file, or not readable; check the path."
    elif isinstance(value, BaseModel):
        for key in type(value).model_fields:
            yield from _missing_files(getattr(value, key), f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _missing_files(entry, where)
