"""Use results from Python and the command line: embed images, assign them to clusters, search similar ones.

import ssltransfer

model = ssltransfer.load_model("results/demo/student/cc-jigsawpp/manifest.json")
found = model.embed("photos")             # a folder, or a list of files
found.vectors.shape, found.paths[0]
found.search(model.embed(["cat.jpg"]).vectors[0], k=5)
"""

from __future__ import annotations

import csv
import html
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from ssltransfer.artifacts import features as _features
from ssltransfer.artifacts import index as _indexes
from ssltransfer.artifacts import labels as _labels
from ssltransfer.artifacts import metrics as _metrics
from ssltransfer.artifacts.archives import Member
from ssltransfer.artifacts.features import FeatureStore
from ssltransfer.artifacts.files import ArtifactError, atomic_folder, atomic_write, read_json, write_text
from ssltransfer.artifacts.index import Index, write_index
from ssltransfer.artifacts.labels import Labels
from ssltransfer.artifacts.manifest import ClusterManifest, FeaturesManifest, ModelManifest, read_manifest
from ssltransfer.artifacts.metrics import Metrics
from ssltransfer.config.base import ConfigError, suggest
from ssltransfer.config.entities import Features
from ssltransfer.config.formats import Folder
from ssltransfer.config.protocols import Pool
from ssltransfer.data.archives import is_archive, members_below
from ssltransfer.kmeans import ArraySource, Clustering, kmeans
from ssltransfer.report.thumbnails import strip
from ssltransfer.stages import label
from ssltransfer.stages.index import make_index
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.extraction import FeatureExtractor

File = str | os.PathLike[str]
Images = File | Sequence[File]
_ABOUT = "ssltransfer"  # key of the metadata in a file of embeddings


@dataclass(frozen=True)
class Embeddings:
    """Features of images.

    Attributes:
        paths: of the images, below `root`.
        vectors: float32 (N, D).
        root: the folder, or "." for a list of files.
        about: model, its digest, layer and pooling.
        skipped: path -> why an image of the folder could not be read.
    """

    paths: list[str]
    vectors: np.ndarray
    root: Path
    about: dict[str, Any]
    skipped: dict[str, str] = field(default_factory=dict)

    def save(self, file: File) -> None:
        """Write a .parquet file (columns path, vector), an .npz file (arrays paths, vectors) or a .zarr folder.

        `root` and `about` are written too. A .zarr folder is laid out like a feature store.

        Raises:
            ArtifactError: another suffix, or the disk is full.
        """
        file, attributes = Path(file), {**self.about, "root": str(self.root)}
        _require_suffix(file)
        if file.suffix == ".zarr":
            self._save_zarr(file, attributes)
            return
        about = json.dumps(attributes)
        with atomic_write(file) as beside:
            if file.suffix == ".parquet":
                flat = pa.array(self.vectors.ravel(), pa.float32())
                vectors = pa.FixedSizeListArray.from_arrays(flat, self.vectors.shape[1])
                table = pa.table({"path": pa.array(self.paths, pa.string()), "vector": vectors})
                pq.write_table(table.replace_schema_metadata({_ABOUT: about}), beside)
            else:
                with beside.open("wb") as out:
                    np.savez(out, paths=np.array(self.paths), vectors=self.vectors, about=np.array(about))

    def _save_zarr(self, folder: Path, attributes: dict[str, Any]) -> None:
        if folder.exists() and not (folder / "zarr.json").is_file():
            raise ArtifactError(f"{folder}: exists, and is not a Zarr store; choose another name.")
        with atomic_folder(folder) as beside:
            store = FeatureStore.create(beside, len(self.paths), self.vectors.shape[1], "float32")
            for chunk in range(store.chunks):
                store.write(chunk, self.vectors[store.span(chunk)])
            store.describe(self.paths, np.full(len(self.paths), -1), attributes)
            shutil.rmtree(folder, ignore_errors=True)

    @classmethod
    def load(cls, file: File) -> Embeddings:
        """Read a file that `save` wrote.

        Raises:
            ArtifactError: missing, or another kind of file.
        """
        file = Path(file)
        _require_suffix(file)
        try:
            if file.suffix == ".zarr":
                store = FeatureStore.open(file)
                (paths, about), vectors = store.description(), store.read(slice(0, store.shape[0]))
            elif file.suffix == ".parquet":
                table = pq.read_table(file)
                paths, about = table["path"].to_pylist(), json.loads(table.schema.metadata[_ABOUT.encode()])
                values = table["vector"].combine_chunks()
                vectors = values.flatten().to_numpy().reshape(len(paths), -1)
            else:
                with np.load(file) as arrays:
                    paths, vectors = arrays["paths"].tolist(), arrays["vectors"]
                    about = json.loads(str(arrays["about"]))
        except FileNotFoundError:
            raise ArtifactError(f"{file}: missing; write it with `ssltransfer embed`.") from None
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
            raise ArtifactError(f"{file}: not a file of `ssltransfer embed`, or damaged.") from None
        if not {"root", "model", "layer", "weights", "pool"} <= about.keys():
            raise ArtifactError(f"{file}: not a file of `ssltransfer embed`.")
        return cls(paths, vectors, Path(about.pop("root")), about)

    def search(self, vector: np.ndarray, k: int = 10) -> list[tuple[str, float]]:
        """The paths of the k most similar images and their cosine similarities, the most similar first."""
        lengths = np.linalg.norm(self.vectors, axis=1) * np.linalg.norm(vector)
        similarity = self.vectors @ vector / np.where(lengths > 0, lengths, 1)
        best = np.argsort(-similarity, kind="stable")[:k]
        return [(self.paths[place], float(similarity[place])) for place in best]


class Model:
    """A model of a pretext or a student stage.

    Attributes:
        manifest: its manifest.json.
        layers: names of its layers, in the network's order.
        normalize: normalization of its images.
    """

    def __init__(self, manifest: File):
        path = Path(manifest)
        self.manifest = path / "manifest.json" if path.is_dir() else path
        content = read_manifest(self.manifest, ModelManifest)
        self.layers, self.normalize, self.digest = content.layers, content.normalize, content.weights

    def embed(
        self,
        images: Images,
        *,
        layer: str | None = None,
        pool: dict[str, int] | None = None,
        threads: int | None = None,
    ) -> Embeddings:
        """Features of images, on the GPU if there is one. The same bits as those of the features stage in float32.

        Args:
            images: a folder or a tar or zip archive, whose unreadable images are skipped, or files.
            layer: default: the last one.
            pool: of a map, such as {"max": 4}; default: its mean, {"avg": 1}.
            threads: of the CPU; default: all.

        Raises:
            ArtifactError: a file is missing or corrupt, or the folder has no image.
            LayerError: the model has no such layer, or it is a vector and cannot be pooled.
        """
        index = index_images(images, threads)
        layer = layer or self.layers[-1]
        try:
            given = None if pool is None else Pool.model_validate(pool)
        except ValidationError as error:
            raise ConfigError(f"pool: {error.errors()[0]['msg']}.") from None
        shapes = read_json(self.manifest.with_name("backbone.json"))["layers"]
        if given is None and len(shapes.get(layer, ())) == 3:
            given = Pool(avg=1)
        spec = Features(model=self.manifest.parent.name, layer=layer, pool=given, precision="float32")
        extraction = FeatureExtractor(spec, self.manifest, plan_devices(threads))
        rows = _features.chunk_rows(len(index), extraction.dims, extraction.dtype)
        spans = [slice(start, min(len(index), start + rows)) for start in range(0, len(index), rows)]
        vectors = np.concatenate(list(extraction.chunks(index, spans, extraction.progress("embed", spans))))
        about = {
            "model": str(self.manifest),
            "weights": self.digest,
            "layer": layer,
            "pool": json.loads(spec.pool.canonical()) if spec.pool else None,
        }
        return Embeddings(list(index.paths), vectors, index.root, about, index.skipped)


def load_model(manifest: File) -> Model:
    """The model of a manifest.json, or of the folder that contains it.

    Raises:
        ArtifactError: not the manifest of a model.
    """
    return Model(manifest)


@dataclass(frozen=True)
class Assignment:
    """The nearest cluster of each image.

    Attributes:
        paths: of the images, below the folder.
        clusters: int32 (N,).
        distances: float32 (N,), squared Euclidean distance to the centroid.
        skipped: path -> why an image of the folder could not be read.
    """

    paths: list[str]
    clusters: np.ndarray
    distances: np.ndarray
    skipped: dict[str, str] = field(default_factory=dict)

    def save(self, file: File) -> None:
        """Write a CSV file with the columns path, cluster and distance."""
        with atomic_write(Path(file)) as beside, beside.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(["path", "cluster", "distance"])
            writer.writerows(zip(self.paths, self.clusters.tolist(), map(repr, self.distances.tolist()), strict=True))


def assign(
    clustering: File,
    images: Images,
    *,
    model: File | None = None,
    threads: int | None = None,
) -> Assignment:
    """The nearest cluster of images, the same as that of the label stage.

    Args:
        clustering: its manifest.json, or its folder.
        images: a folder, whose unreadable images are skipped, or files.
        model: manifest of the model whose features were clustered; default: the one in the same results.
        threads: of the CPU; default: all.

    Raises:
        ArtifactError: the model is missing or another one, or an image cannot be read.
    """
    path = Path(clustering)
    path = path / "manifest.json" if path.is_dir() else path
    results, name = path.resolve().parents[2], read_manifest(path, ClusterManifest).spec.features
    extracted = sorted((results / "features" / name).glob("*/manifest.json"))
    if not extracted:
        raise ArtifactError(f"{results / 'features' / name}: no features; they say how those of {path} were computed.")
    spec = read_manifest(extracted[0], FeaturesManifest).spec
    if spec.file:
        raise ArtifactError(f"{path}: its features were made elsewhere, so images cannot be assigned by a model.")
    candidates = [Path(model)] if model else [results / stage / spec.model for stage in ("pretext", "student")]
    manifests = [one / "manifest.json" if one.is_dir() else one for one in candidates]
    found = next((manifest for manifest in manifests if manifest.is_file()), None)
    if found is None:
        raise ArtifactError(f"{path}: its model {spec.model} is not in {results}; name its manifest (--model).")
    index = index_images(images, threads)
    with tempfile.TemporaryDirectory() as folder:
        write_index(Path(folder) / "images.parquet", index)
        output = Path(folder) / "labels.parquet"
        label.run(
            spec=spec.canonical(),
            cluster=path,
            index=Path(folder) / "images.parquet",
            output=output,
            model=found,
            threads=threads,
        )
        labels = read_labels(output)
    return Assignment(list(index.paths), labels.labels, labels.distances, index.skipped)


def cluster(vectors: np.ndarray, k: int, *, seed: int = 0, **options: Any) -> Clustering:
    """k-means of vectors (N, D) on the GPU if there is one: centroids, labels, distances.

    Args:
        vectors: float16 or float32.
        k: number of clusters.
        seed: of the initial centroids.
        options: `l2_normalize`, `max_iter`, `init` and more of `ssltransfer.kmeans.kmeans`; `init` is "pca" by default.

    Raises:
        ArtifactError: k > N, fewer than k distinct vectors, or a value that is not finite.
    """
    given: dict[str, Any] = {"init": "pca", "device": plan_devices().device, "where": "the vectors", **options}
    return kmeans(ArraySource(np.ascontiguousarray(vectors)), k, seed=seed, **given)


def search(embeddings: File | Embeddings, image: File, *, k: int = 10) -> list[tuple[str, float]]:
    """The images of a file of embeddings that are most similar to an image: paths and cosine similarities.

    Raises:
        ArtifactError: the model of the embeddings has changed or is missing, or the image cannot be read.
    """
    found = embeddings if isinstance(embeddings, Embeddings) else Embeddings.load(embeddings)
    model = Model(found.about["model"])
    if model.digest != found.about["weights"]:
        raise ArtifactError(
            f"{model.manifest}: has other weights than when the images were embedded; embed them again."
        )
    query = model.embed([image], layer=found.about["layer"], pool=found.about["pool"])
    return found.search(query.vectors[0], k)


def open_features(manifest: File) -> FeatureStore:
    """The features of a manifest.json of the features stage: `store.shape`, `store.read(slice(0, 100))`.

    Raises:
        ArtifactError: missing or incomplete.
    """
    return _features.open_features(Path(manifest))[0]


def read_index(file: File) -> Index:
    """An index of images: `paths`, `labels`, `classes`, `sizes` and more. pandas reads the same parquet file.

    Raises:
        ArtifactError: missing, or not an index.
    """
    return _indexes.read_index(Path(file))


def read_labels(file: File) -> Labels:
    """Pseudo-labels of the label stage.

    Raises:
        ArtifactError: missing, or not a file of labels.
    """
    return _labels.read_labels(Path(file))


def read_metrics(file: File) -> Metrics:
    """Metrics of the evaluate stage.

    Raises:
        ArtifactError: missing, or not a file of metrics.
    """
    return _metrics.read_metrics(Path(file))


def write_strip(file: Path, image: Path, found: Sequence[tuple[str, float]], root: Path) -> None:
    """Write an HTML page of an image and the images that were found, with their similarities."""
    index = unlabeled_index(root, [path for path, _ in found])
    figures: list[tuple[Path | Member, Path | str, str]] = [
        (image, image, "query"),
        *((index.source(i), path, f"{similarity:.3f}") for i, (path, similarity) in enumerate(found)),
    ]
    shown = "".join(
        f'<figure><img src="{strip([source], 128)}" alt=""><figcaption>{html.escape(text)}<br>'
        f"{html.escape(Path(path).name)}</figcaption></figure>\n"
        for source, path, text in figures
    )
    write_text(
        file,
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Similar images</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>body { display: flex; '
        "flex-wrap: wrap; font: 13px system-ui; } figure { margin: 4px; width: 128px; overflow-wrap: anywhere; }"
        f"</style></head><body>\n{shown}</body></html>\n",
    )


def index_images(images: Images, threads: int | None) -> Index:
    """The index of a folder or archive, or of files in their order.

    Raises:
        ArtifactError: a file is missing, or the folder has no image.
    """
    if isinstance(images, str | os.PathLike):
        root = Path(images)
        if root.is_dir() or is_archive(root):
            return make_index(Folder(root=str(root), max_corrupt_fraction=1), threads)
        images = [images]
    paths = [os.fspath(path) for path in images]
    if missing := next((path for path in paths if not Path(path).is_file()), None):
        known = [entry.name for entry in Path(missing).parent.iterdir()] if Path(missing).parent.is_dir() else []
        near = suggest(Path(missing).name, known).partition(" Allowed")[0] if known else "."
        raise ArtifactError(f"{missing}: no such file{near}")
    return unlabeled_index(Path(), paths)


def unlabeled_index(root: Path, paths: Sequence[str]) -> Index:
    """An index of files of a folder or an archive, which are not opened: without labels, sizes and digests.

    Raises:
        ArchiveError: the archive cannot be read, or lacks a file.
    """
    n = len(paths)
    labels, sizes, members = np.full(n, -1, np.int32), np.zeros((n, 2), np.int32), members_below(root, paths)
    return Index(root, paths, labels, [], sizes, [""] * n, members=members)


def _require_suffix(file: Path) -> None:
    if file.suffix not in (".parquet", ".npz", ".zarr"):
        raise ArtifactError(f"{file}: the suffix selects the format; use .parquet, .npz or .zarr.")
