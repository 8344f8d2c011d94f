"""Maps of a model's layers as colors: three principal components of the features at all locations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.data.drawing import data_uri
from ssltransfer.data.loader import load_batches, sequential_keys
from ssltransfer.models.backbone import LayerError
from ssltransfer.models.weights import PretrainedModel, read_model
from ssltransfer.protocols.base import evenly_spaced
from ssltransfer.training.devices import Devices

LAYERS = 8  # shown, the last one among them
PERCENTILES = (1, 99)  # of a component, that black and full color stand for


@dataclass(frozen=True)
class ColoredLayer:
    """A layer: its map's size, the share of the variance that the colors show, in percent, and a data URI of
    each image, a pixel per location."""

    name: str
    height: int
    width: int
    explained: float
    uris: list[str]


def colored_layers(
    manifest: Path, index: Index, samples: Sequence[int], devices: Devices
) -> tuple[list[str], list[ColoredLayer]]:
    """What a model sees of images, their central crops as data URIs, and its maps in colors.

    Raises:
        LayerError: no layer is a map of at least 2 x 2 locations.
        ArtifactError: the model or an image cannot be read, or a feature is not finite.
    """
    model = read_model(manifest, devices.device)
    shapes = model.backbone.shapes()
    maps = [name for name in model.backbone.options.spatial_layers if min(shapes[name][1:]) > 1]
    if not maps:
        raise LayerError(f"{manifest}: no layer is a map of at least 2 x 2 locations.")
    maps = [maps[i] for i in evenly_spaced(len(maps), LAYERS)]
    views, layers = _forward(model, maps, index, samples, devices)
    colored = []
    for name, values in layers.items():
        if not np.isfinite(values).all():
            raise ArtifactError(f"{manifest}: layer {name} gives values that are not finite; the model is broken.")
        colors, explained = principal_colors(values)
        uris = [data_uri(one, "PNG") for one in colors]
        colored.append(ColoredLayer(name, values.shape[2], values.shape[3], explained, uris))
    return [data_uri(view, "JPEG") for view in views], colored


def _forward(
    model: PretrainedModel, layers: list[str], index: Index, samples: Sequence[int], devices: Devices
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """uint8 (S, S, 3) of each image, and layer -> float32 (N, C, H, W)."""
    views: list[np.ndarray] = []
    found: dict[str, list[np.ndarray]] = {name: [] for name in layers}
    for batch in load_batches(index, model.view, sequential_keys(list(samples), 1), seed=0, workers=0):
        views.append(batch.images[0].permute(1, 2, 0).contiguous().numpy())
        images = batch.images.to(devices.device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            for name, value in model.layers_of(images, layers).items():
                found[name].append(value.float().cpu().numpy())
    return views, {name: np.concatenate(values) for name, values in found.items()}


def principal_colors(maps: np.ndarray) -> tuple[np.ndarray, float]:
    """Maps (N, C, H, W) -> uint8 (N, H, W, 3), and the share of the variance that they show, in percent.

    Red, green and blue are the first three principal components over the locations of all images, each from its first
    to its 99th percentile; black if it is constant. The sign of a component is that of its largest weight.
    """
    n, channels, height, width = maps.shape
    rows = maps.transpose(0, 2, 3, 1).reshape(-1, channels).astype(np.float64)
    rows -= rows.mean(0)
    values, vectors = np.linalg.eigh(rows.T @ rows)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1][:, :3]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])])
    components = np.zeros((len(rows), 3))
    components[:, : vectors.shape[1]] = rows @ vectors
    low, high = np.percentile(components, PERCENTILES, axis=0)
    varies = high - low > 1e-9 * max(1.0, np.abs(maps).max())
    scaled = np.clip((components - low) / np.where(varies, high - low, 1), 0, 1) * varies
    share = 100 * values[:3].sum() / values.sum() if values.sum() else 0.0
    return (255 * scaled).round().astype(np.uint8).reshape(n, height, width, 3), float(share)
