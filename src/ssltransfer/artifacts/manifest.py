"""Reading of manifests and run information as typed objects."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ssltransfer.artifacts.files import ArtifactError, read_json
from ssltransfer.artifacts.workdir import run_info_file
from ssltransfer.config.base import ConfigError, Normalize, Spec
from ssltransfer.config.entities import Cluster, Features, Pretext, Student

S = TypeVar("S", bound=Spec)


class Manifest(BaseModel, Generic[S]):
    """manifest.json of a stage; a subclass adds the fields and spec classes of its stages.

    Attributes:
        specs: stage -> class of its spec.
        path: of the file.
        stage: the stage that wrote it.
        spec: of the stage.
        inputs: role -> digests of the input files.
        work: key of the work directory.
    """

    model_config = ConfigDict(frozen=True)
    specs: ClassVar[Mapping[str, type[Spec]]]

    path: Path
    stage: str
    spec: S
    inputs: dict[str, list[str]] = {}
    work: str = ""

    def curve(self) -> list[dict[str, float]]:
        """Rows of curve.jsonl next to the manifest or in its work directory; empty without one.

        Raises:
            ArtifactError: the file is not JSON lines.
        """
        folders = (self.path.parent, self.path.parent / "work" / self.work)
        file = next((folder / "curve.jsonl" for folder in folders if (folder / "curve.jsonl").is_file()), None)
        try:
            lines = file.read_text(encoding="utf-8").splitlines() if file else []
            return [json.loads(line) for line in lines if line.strip()]
        except json.JSONDecodeError:
            raise ArtifactError(f"{file}: not a learning curve; remove {self.path} and rerun its stage.") from None


class ModelManifest(Manifest[Pretext | Student]):
    """A pretext or student.

    Attributes:
        weights: digest of backbone.safetensors.
        normalize: normalization of the training images.
        layers: layer names in the network's order.
        summary: last values of the curve and `chance_loss`; None if the model was not trained.
        chance_losses: task -> chance-level loss, for multi-task training.
        mixes: task -> alpha of each unit, for multi-task training with `l1_layer_mix`.
        snapshots: step -> digest of the backbone's weights after it.
        init: digest of the weights that the training started from; None for random ones.
    """

    specs: ClassVar[Mapping[str, type[Spec]]] = {"pretext": Pretext, "student": Student}

    weights: str
    normalize: Normalize
    layers: list[str] = []
    summary: dict[str, float] | None = None
    chance_losses: dict[str, float] = {}
    mixes: dict[str, list[float]] = {}
    snapshots: dict[str, str] = {}
    init: str | None = None


class FeaturesManifest(Manifest[Features]):
    """Features of one dataset.

    Attributes:
        index: fingerprint of the dataset.
        model: digest of the weights.
        layer_shape: shape of the layer after pooling, for one image.
        chunks: digest of every chunk.
    """

    specs: ClassVar[Mapping[str, type[Spec]]] = {"features": Features}

    index: str
    model: str
    layer: str
    layer_shape: list[int]
    chunks: list[str]

    @property
    def origin(self) -> dict[str, Any]:
        """Weights, layer, its shape and pooling. Only features of one origin can be compared."""
        pool = json.loads(self.spec.pool.canonical()) if self.spec.pool else None
        return {"model": self.model, "layer": self.layer, "layer_shape": self.layer_shape, "pool": pool}


class ClusterManifest(Manifest[Cluster]):
    """A clustering; `sizes` counts the points of each cluster, `objective` is their summed squared distance to the
    centroids, `stopped` names the criterion that ended k-means.

    `levels` has an entry per level above: `parents` is the cluster of each cluster of the level below.

    The keys of `FeaturesManifest.origin` are those of the clustered features.
    """

    specs: ClassVar[Mapping[str, type[Spec]]] = {"cluster": Cluster}

    centroids: str
    index: str
    model: str
    layer: str
    layer_shape: list[int]
    pool: dict[str, Any] | None
    points: int
    sizes: list[int]
    objective: float
    iterations: int
    stopped: str
    levels: list[dict[str, Any]] = []

    @property
    def parents(self) -> list[np.ndarray]:
        """For each level above, int64 (k,): the cluster of each cluster of the level below."""
        return [np.array(level["parents"]) for level in self.levels]


M = TypeVar("M", bound=Manifest[Any])


def read_manifest(path: Path, kind: type[M]) -> M:
    """Read a manifest.

    Raises:
        ArtifactError: missing, from another stage than `kind` expects, or not valid.
    """
    content = read_json(path)
    stage = str(content.get("stage")) if isinstance(content, dict) else ""
    if stage not in kind.specs:
        raise ArtifactError(f"{path}: not a manifest of the {' or '.join(kind.specs)} stage.")
    try:
        spec = kind.specs[stage].parse(json.dumps(content.get("spec")))
        return kind.model_validate({**content, "path": path, "spec": spec})
    except (ConfigError, ValidationError) as error:
        raise ArtifactError(
            f"{path}: not a valid manifest ({str(error).removeprefix('--spec: ')}); remove it and run its stage again."
        ) from None


class RunInfo(BaseModel):
    """run.json: information that may differ between equal runs; versions and machine are in `model_extra`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    seconds: float = 0.0
    peak_memory_mb: int | None = None
    images_per_second: float | None = None
    data_wait_fraction: float | None = None
    device: str | None = None


def read_run_info(output: Path) -> RunInfo | None:
    """Information on the run that wrote `output`; None if its file is missing or invalid."""
    try:
        return RunInfo.model_validate(read_json(run_info_file(output)))
    except (ArtifactError, ValidationError):
        return None
