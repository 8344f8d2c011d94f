"""Feature stores of any values, as the features stage writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssltransfer.artifacts.features import FeatureStore
from ssltransfer.artifacts.files import write_json
from ssltransfer.artifacts.index import Index, read_index, write_index

StoreMaker = Callable[..., tuple[Path, Path]]


@pytest.fixture
def make_features(tmp_path: Path) -> StoreMaker:
    """make_features(values, name="d", **manifest) -> (manifest of the features, index) of as many images."""

    def make(values: np.ndarray, name: str = "d", **manifest: Any) -> tuple[Path, Path]:
        n, dims = values.shape
        index = tmp_path / "index" / f"{name}.parquet"
        images = Index(
            root=tmp_path,
            paths=[f"{name}/{i}.png" for i in range(n)],
            labels=np.full(n, -1, np.int32),
            classes=[],
            sizes=np.full((n, 2), 8, np.int32),
            digests=[f"{name}{i:08}" for i in range(n)],
        )
        write_index(index, images)
        path = tmp_path / "features" / "f" / name / "manifest.json"
        store = FeatureStore.create(path.parent / "work" / "key" / "features.zarr", n, dims, str(values.dtype))
        for chunk in range(store.chunks):
            store.write(chunk, values[store.span(chunk)])
        content = {
            "stage": "features",
            "spec": {"model": "m", "layer": "conv4", "pool": {"max": 2}},
            "inputs": {},
            "work": "key",
            "index": read_index(index).fingerprint,
            "shape": [n, dims],
            "layer": "conv4",
            "layer_shape": [dims],
            "model": "0" * 32,
            "chunks": store.digests(),
        }
        write_json(path, content | manifest)
        return path, index

    return make
