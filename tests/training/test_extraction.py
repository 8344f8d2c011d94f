"""What is labeled while it is computed gets the labels of what was stored; rounding is numpy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssltransfer.artifacts import features as artifact
from ssltransfer.artifacts.features import chunk_rows
from ssltransfer.artifacts.files import ArtifactError, write_json
from ssltransfer.artifacts.labels import read_labels
from ssltransfer.config.backbones import CaffeNet
from ssltransfer.config.entities import Cluster, Features
from ssltransfer.models.build import build_backbone
from ssltransfer.models.weights import write_model
from ssltransfer.stages import cluster, features, label
from ssltransfer.training.devices import plan_devices
from ssltransfer.training.extraction import FeatureExtractor, _Chunk

CHUNK = 10 * 48 * 16 * 2  # bytes: ten images' conv4 pooled to 4x4 in float16


class Chain:
    """A model and a clustering of its features of one dataset, made by the stages."""

    def __init__(self, folder: Path, data: Path, **more: Any):
        self.folder = folder
        backbone = build_backbone(CaffeNet(width_mult=0.125, img_size=48, stem_stride=2), include_top=True, seed=0)
        made = {"stage": "pretext", **write_model(folder / "m", backbone, "per-image", {})}
        self.model = folder / "m" / "manifest.json"
        write_json(self.model, made)
        self.spec = Features.model_validate({"model": "m", "layer": "conv4", "pool": {"max": 4}, **more})
        self.cluster = folder / "cluster" / "manifest.json"
        spec = Cluster(features="f", data="d", k=6)
        cluster.run(spec, features=self.stored(data), output=self.cluster, threads=1)

    def stored(self, data: Path, threads: int = 1) -> Path:
        output = self.folder / f"{data.stem}-{threads}" / "manifest.json"
        features.run(self.spec, model=self.model, data=data, output=output, threads=threads)
        return output

    def labels(self, data: Path, name: str, threads: int = 1, **source: Any) -> Path:
        output = self.folder / f"{name}.parquet"
        spec = self.spec.canonical() if "model" in source else "label"
        label.run(spec=spec, cluster=self.cluster, index=data, output=output, threads=threads, **source)
        return output


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_streaming_source_gives_the_labels_of_stored_features(
    threads: int, precision: str, tmp_path: Path, objects_path: Path, objects_val_path: Path, monkeypatch: Any
):
    monkeypatch.setattr(artifact, "CHUNK_BYTES", CHUNK)  # three chunks in float16, five in float32
    monkeypatch.setenv("SSLTRANSFER_WORKERS", str(threads - 1))
    chain = Chain(tmp_path, objects_path, precision=precision)
    stored = chain.labels(objects_val_path, "stored", threads, features=chain.stored(objects_val_path, threads))
    passing = chain.labels(objects_val_path, "passing", threads, model=chain.model)
    assert passing.read_bytes() == stored.read_bytes()
    assert len(set(read_labels(passing).labels)) > 1 and len(read_labels(passing).labels) == 24
    assert '"data_wait_fraction"' in (tmp_path / "passing.run.json").read_text()


def test_streaming_source_rounds_as_the_store_does(tmp_path: Path, objects_path: Path, objects_val_path: Path):
    """So that the test above can fail: distances of unrounded features are others."""
    chain = Chain(tmp_path, objects_path)
    rounded = read_labels(chain.labels(objects_val_path, "rounded", model=chain.model))
    chain.spec = chain.spec.model_copy(update={"precision": "float32"})
    exact = read_labels(chain.labels(objects_val_path, "exact", model=chain.model))
    assert not np.array_equal(rounded.distances, exact.distances)
    assert np.allclose(rounded.distances, exact.distances, rtol=1e-2)


def test_label_rejects_a_model_that_was_not_clustered(tmp_path: Path, objects_path: Path, objects_val_path: Path):
    chain = Chain(tmp_path, objects_path)
    chain.spec = chain.spec.model_copy(update={"layer": "conv3"})
    with pytest.raises(ArtifactError, match=r"manifest.json: features of another backbone than .*another layer"):
        chain.labels(objects_val_path, "x", model=chain.model)
    sources: list[dict[str, Any]] = [{}, {"model": chain.model, "features": chain.model}]
    for source in sources:
        with pytest.raises(ArtifactError, match=r"x.parquet: give either --features .* or --model"):
            chain.labels(objects_val_path, "x", **source)
    assert not (tmp_path / "x.parquet").exists()


def test_chunk_rounds_every_float16_as_numpy():
    """All finite halves and what lies between neighbors: ties, subnormals, both zeros."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = np.sort(halves[np.isfinite(halves)]).astype(np.float32)
    values = np.concatenate([halves, (halves[1:] + halves[:-1]) / 2, np.nextafter(halves, np.float32(1))])
    chunk = _Chunk(len(values), 1, "float16", torch.device("cpu"))
    for part in torch.from_numpy(values)[:, None].split(1000):
        chunk.add(part)
    chunk.close()
    rows, largest = chunk.result()
    assert np.array_equal(rows[:, 0].view(np.uint16), values.astype(np.float16).view(np.uint16))
    assert largest == 65504


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_chunk_reports_values_that_are_not_finite(bad: float):
    chunk = _Chunk(6, 5, "float32", torch.device("cpu"))
    for place in (0, 3):
        values = torch.ones(3, 5)
        values[1, 2] = bad if place == 0 else 7
        chunk.add(values)
    assert not np.isfinite(chunk.result()[1])


def test_feature_extractor_has_the_shape_of_the_pooled_layer(tmp_path: Path, objects_path: Path):
    chain = Chain(tmp_path, objects_path)
    devices = plan_devices(1)
    for layer, pool, shape in (("conv4", {"max": 4}, (48, 4, 4)), ("fc7", None, (512,))):
        spec = Features.model_validate({"model": "m", "layer": layer, "pool": pool})
        extraction = FeatureExtractor(spec, chain.model, devices)
        assert extraction.shape == shape and extraction.dims == np.prod(shape)
        assert chunk_rows(10**9, extraction.dims, extraction.dtype) == artifact.CHUNK_BYTES // (2 * extraction.dims)
