"""What students keep of their teachers, and what both cost."""

from collections.abc import Iterator
from dataclasses import dataclass

from ssltransfer.artifacts.files import read_json
from ssltransfer.artifacts.manifest import ModelManifest
from ssltransfer.artifacts.metrics import Metrics
from ssltransfer.config.backbones import BackboneOptions
from ssltransfer.config.entities import Pretext, Student
from ssltransfer.config.tasks import RandomNetwork
from ssltransfer.models.flops import flops
from ssltransfer.report.claims import ERRORS, compare
from ssltransfer.report.load_results import Results


@dataclass(frozen=True)
class ModelSize:
    """Parameters, size of the weights file in MB, and multiply-adds for one image.

    Multiply-adds are counted instead of measuring images per second, which depend on the machine, its load and the
    decoding of images, so that equal results would give different reports.
    """

    parameters: int
    megabytes: float
    multiply_adds: int


@dataclass(frozen=True)
class StudentRow:
    """A student and its teacher.

    Attributes:
        kept: evaluation -> (student - random) / (teacher - random) of the primary metric; `random` is the random
            network of the student's backbone. None if one of them is not evaluated, or if the teacher is not better
            than it by more than two standard errors.
    """

    student: str
    teacher: str
    sizes: tuple[ModelSize, ModelSize]
    kept: dict[str, float | None]


def students(results: Results) -> Iterator[StudentRow]:
    """Every student with a known teacher."""
    for name, record in results.models.items():
        spec = record.content.spec
        teacher = results.teacher(spec) if isinstance(spec, Student) else None
        if teacher in results.models and teacher is not None:
            sizes = _size(record.content), _size(results.models[teacher].content)
            random = [other for other, one in results.models.items() if _is_random(one.content, spec.backbone)]
            kept = {key: _kept(all_, name, teacher, random) for key, all_ in results.evaluations.items()}
            yield StudentRow(name, teacher, sizes, kept)


def _is_random(model: ModelManifest, backbone: BackboneOptions) -> bool:
    spec = model.spec
    return isinstance(spec, Pretext) and spec.task == RandomNetwork() and spec.backbone == backbone


def _kept(measured: list[Metrics], student: str, teacher: str, random: list[str]) -> float | None:
    found = {metrics.model: metrics for metrics in measured}
    floor = [found[name] for name in random if name in found]
    if student not in found or teacher not in found or not floor:
        return None
    gain, error = compare([found[teacher]], floor)
    return compare([found[student]], floor)[0] / gain if gain > ERRORS * error else None


def _size(model: ModelManifest) -> ModelSize:
    if not model.spec.backbone.is_network:
        return ModelSize(0, 0.0, 0)
    about = read_json(model.path.with_name("backbone.json"))
    size = model.path.with_name("backbone.safetensors").stat().st_size
    multiply_adds = flops(model.spec.backbone, include_top=about["include_top"]) / 2
    return ModelSize(about["parameters"], size / 1e6, round(multiply_adds))
