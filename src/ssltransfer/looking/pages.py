"""Pages to look at models, features and clusterings: maps, duplicates, outliers, all clusters. One HTML file each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssltransfer.api import Embeddings, index_images, unlabeled_index
from ssltransfer.artifacts.archives import Member
from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.files import ArtifactError, read_json, write_text
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.artifacts.labels import Labels, read_labels
from ssltransfer.artifacts.manifest import ClusterManifest, ModelManifest, read_manifest
from ssltransfer.kmeans import ArraySource, PointSource
from ssltransfer.kmeans.points import SubsetSource
from ssltransfer.logs import logger
from ssltransfer.looking.clusterings import ClusteringRow, clustering_rows
from ssltransfer.looking.color_maps import colored_layers
from ssltransfer.looking.feature_map import Projection, project
from ssltransfer.looking.gallery import COLUMNS, MAX_BYTES, build_gallery
from ssltransfer.looking.neighbors import duplicate_groups, duplicate_level, find_neighbors, outliers
from ssltransfer.report.page import make_environment
from ssltransfer.report.plots import COLORS
from ssltransfer.report.thumbnails import sheets, thumbnail_source, tiles
from ssltransfer.training.devices import plan_devices

MAPPED = 3000  # images in the map
COMPARED = 50_000  # images in the search for duplicates and outliers on a CPU
MAP_SIDE, MAP_COLUMNS, MAP_SHEET = 48, 20, 300  # pixels of a thumbnail, thumbnails per row and per sheet
GROUPS, GROUP_IMAGES, OUTLIERS = 60, 12, 48  # shown
MODEL_IMAGES, MODEL_SIDE = 12, 112  # whose maps are shown, and pixels of each


@dataclass(frozen=True)
class _Features:
    """Features of a dataset, its clusterings, and the names for the page."""

    name: str
    dataset: str
    origin: str
    source: PointSource
    index: Index
    clusterings: list[tuple[str, ClusterManifest, Labels]]


def look(
    result: Path,
    page: Path | None = None,
    *,
    images: Path | None = None,
    projection: Projection = "tsne",
    seed: int = 0,
    threads: int | None = None,
) -> Path:
    """Write an HTML page of a result.

    A model: the maps of its layers in colors. Features: map, clusterings, near-duplicates, outliers. A clustering: all
    clusters.

    Equal results and seeds give equal pages on one machine.

    Args:
        result: manifest.json of a model, of features or of a clustering, or its folder, or a file of labels or of
            `ssltransfer embed`. A clustering is shown on its own dataset, labels on theirs.
        page: default: in the report's folder of the same results, or beside the file of embeddings.
        images: a folder or archive, or an image, to show a model on; default: its training images.
        projection: of the map of features.
        seed: of the images that are drawn from a large dataset.
        threads: of the CPU; default: all.

    Returns:
        The page.

    Raises:
        ArtifactError: not such a result, or its images, labels or features are missing or belong to other images.
        LayerError: a model without maps.
        MissingExtraError: the projection `umap` without its package.
    """
    path = (result / "manifest.json" if (result / "manifest.json").is_file() else result).resolve()
    kind = _kind(path)
    if images and kind != "model":
        raise ArtifactError(f"{path}: only a model is shown on other images; leave out --images.")
    if kind == "model":
        page = page or path.parents[2] / "report" / "models" / f"{path.parent.name}.html"
        html = _model_page(path, images, seed, threads)
    elif kind == "embeddings":
        page = page or path.with_suffix(".html")
        html = _features_page(_embeddings(path), projection, seed, threads)
    elif kind == "features":
        features = _stored(path)
        page = page or path.parents[3] / "report" / "features" / features.name / f"{features.dataset}.html"
        html = _features_page(features, projection, seed, threads)
    else:
        labels = path if kind == "labels" else _labels_of(path)
        results, name, dataset = labels.parents[2], labels.parent.name, labels.stem
        page = page or results / "report" / "clusters" / name / f"{dataset}.html"
        html = _gallery_page(results, name, dataset, labels, threads)
    write_text(page, html)
    return page


def _kind(path: Path) -> str:
    """model, features, cluster, labels or embeddings."""
    if path.suffix == ".parquet":
        try:
            names = pq.read_schema(path).names
        except FileNotFoundError:
            raise ArtifactError(f"{path}: missing.") from None
        except (OSError, pa.ArrowException):
            raise ArtifactError(f"{path}: not a parquet file, or damaged.") from None
        return "embeddings" if "vector" in names else "labels"
    if path.suffix in (".npz", ".zarr"):
        return "embeddings"
    content = read_json(path)
    stage = str(content.get("stage")) if isinstance(content, dict) else ""
    if stage in ("pretext", "student"):
        return "model"
    if stage not in ("features", "cluster"):
        raise ArtifactError(
            f"{path}: nothing to look at; name a model, features, a clustering, labels or a file of embeddings."
        )
    return stage


def _embeddings(path: Path) -> _Features:
    found = Embeddings.load(path)
    index = unlabeled_index(found.root, found.paths)
    origin = f"layer {found.about['layer']} of {found.about['model']}"
    return _Features(path.stem, str(found.root), origin, ArraySource(found.vectors), index, [])


def _stored(path: Path) -> _Features:
    store, manifest = open_features(path)
    results, name, dataset = path.parents[3], path.parents[1].name, path.parent.name
    index = _read_images(results, dataset, manifest.index)
    clusterings = []
    for labels in sorted(results.glob(f"label/*/{dataset}.parquet")):
        clustering = results / "cluster" / labels.parent.name / "manifest.json"
        if not clustering.is_file():
            continue
        content, found = read_manifest(clustering, ClusterManifest), read_labels(labels)
        if content.spec.features == name and found.index == manifest.index:
            clusterings.append((labels.parent.name, content, found))
    file = manifest.spec.file
    origin = f"vectors of {file.path}" if file else f"layer {manifest.layer} of {manifest.spec.model}"
    return _Features(name, dataset, origin, store, index, clusterings)


def _labels_of(path: Path) -> Path:
    """The labels of a clustering's own dataset."""
    dataset = read_manifest(path, ClusterManifest).spec.data
    return path.parents[2] / "label" / path.parent.name / f"{dataset}.parquet"


def _read_images(results: Path, dataset: str, fingerprint: str | None = None) -> Index:
    """The index of a dataset, with its pixels if these are cached; with a fingerprint only if it is the same."""
    for stage in ("index", "cache", "motion", "curate"):
        file = results / stage / f"{dataset}.parquet"
        if file.is_file() and (index := read_index(file)).fingerprint == (fingerprint or index.fingerprint):
            source = thumbnail_source(index, 0) if len(index) else None
            if isinstance(source, Path | Member) and not source.exists():
                logger.warning(
                    f"{source}: missing, so its thumbnail is gray; start the command where the pipeline started."
                )
            return index
    raise ArtifactError(
        f"{results / 'index' / dataset}.parquet: missing, or its images changed since; run the pipeline again."
    )


def _model_page(manifest: Path, images: Path | None, seed: int, threads: int | None) -> str:
    if images:
        index, dataset = index_images(images, threads), str(images)
    else:
        spec = read_manifest(manifest, ModelManifest).spec
        if not (dataset := spec.data or ""):
            raise ArtifactError(f"{manifest}: was not trained here, so it has no images; name a folder (--images).")
        index = _read_images(manifest.parents[2], dataset)
    samples = _draw(len(index), MODEL_IMAGES, seed).tolist()
    views, layers = colored_layers(manifest, index, samples, plan_devices(threads))
    return _render(
        "maps.html.j2",
        title=f"Maps of {manifest.parent.name}",
        dataset=dataset,
        views=views,
        paths=[index.paths[sample] for sample in samples],
        layers=layers,
        side=MODEL_SIDE,
    )


def _gallery_page(results: Path, name: str, dataset: str, file: Path, threads: int | None) -> str:
    labels = read_labels(file)
    index = _read_images(results, dataset, labels.index)
    manifest = results / "cluster" / name / "manifest.json"
    return _render(
        "gallery.html.j2",
        title=f"Clusters of {name}",
        dataset=dataset,
        manifest=read_manifest(manifest, ClusterManifest) if manifest.is_file() else None,
        labels=labels,
        clusters=build_gallery(index, labels, threads),
        columns=COLUMNS,
    )


def _features_page(features: _Features, projection: Projection, seed: int, threads: int | None) -> str:
    index, source = features.index, features.source
    n, devices = len(index), plan_devices(threads)
    drawn = _draw(n, MAPPED, seed)
    rows = SubsetSource(source, drawn).read(slice(0, len(drawn)))
    if not np.isfinite(rows).all():
        raise ArtifactError(f"{features.name}: a feature is not finite.")
    clusterings = clustering_rows(features.clusterings, index, drawn, rows)
    compared = np.arange(n) if devices.cuda else _draw(n, COMPARED, seed)
    part = source if len(compared) == n else SubsetSource(source, compared)
    neighbors = find_neighbors(part, devices.device, features.name)
    groups, distant = duplicate_groups(neighbors), outliers(neighbors, OUTLIERS)
    shown = [[int(compared[sample]) for sample in group.members] for group in groups[:GROUPS]]
    strips = [tiles(index, members[:GROUP_IMAGES], threads=threads) for members in shown]
    far = [(int(compared[sample]), cosine) for sample, cosine in distant]
    single = list(tiles(index, [sample for sample, _ in far], threads=threads)[:, None])
    uris = sheets([*strips, *single], COLUMNS, MAX_BYTES // 4)
    return _render(
        "features.html.j2",
        title=f"Features {features.name}",
        features=features,
        index=index,
        map=_map(index, drawn, project(rows, seed, projection), clusterings, threads),
        projection=projection,
        mapped=len(drawn),
        clusterings=clusterings,
        compared=len(compared),
        level=duplicate_level(neighbors) if neighbors.ids.size else 1.0,
        usual=float(np.median(neighbors.cosines)) if neighbors.ids.size else 1.0,
        neighbors=neighbors.ids.shape[1],
        duplicates=sum(len(group.members) for group in groups),
        groups=groups,
        duplicate_views=list(zip(groups, shown, uris, strict=False)),
        outliers=list(zip(far, uris[len(strips) :], strict=True)),
        columns=COLUMNS,
        group_images=GROUP_IMAGES,
    )


def _draw(n: int, most: int, seed: int) -> np.ndarray:
    """Ascending samples, int64: all, or as many as `most` allows."""
    if n <= most:
        return np.arange(n)
    drawn: np.ndarray = np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
    return drawn


def _map(
    index: Index, drawn: np.ndarray, places: np.ndarray, clusterings: list[ClusteringRow], threads: int | None
) -> dict[str, Any]:
    """What the script of the page draws: places, names, groups to color by, and sheets of thumbnails."""
    colorings: list[dict[str, Any]] = []
    if index.has_labels:
        colorings.append({"name": "class", "of": index.labels[drawn].tolist(), "names": index.classes})
    colorings += [{"name": row.name, "of": row.labels.labels[drawn].tolist(), "names": None} for row in clusterings]
    thumbnails = tiles(index, drawn.tolist(), MAP_SIDE, threads)
    pieces = [thumbnails[start : start + MAP_SHEET] for start in range(0, len(drawn), MAP_SHEET)]
    return {
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "paths": [index.paths[sample] for sample in drawn.tolist()],
        "colorings": colorings,
        "colors": COLORS,
        "sheets": sheets(pieces, MAP_COLUMNS, MAX_BYTES * 3 // 4),
        "cell": MAP_SIDE + 2,
        "columns": MAP_COLUMNS,
        "each": MAP_SHEET,
    }


def _render(template: str, **values: Any) -> str:
    environment, style = make_environment()
    text: str = environment.get_template(template).render(style=style, **values)
    return text
