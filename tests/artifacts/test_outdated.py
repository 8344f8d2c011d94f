import json
from pathlib import Path

import pytest

from ssltransfer.artifacts.files import write_json
from ssltransfer.artifacts.outdated import outdated_outputs
from ssltransfer.config import complete
from ssltransfer.config.entities import Features
from ssltransfer.config.formats import Synthetic
from ssltransfer.config.protocols import Retrieval
from ssltransfer.stages import index


def outdated(root: str = "w", k: int = 3, layer: str = "conv4") -> list[str]:
    dataset = {"format": "synthetic", "root": root, "subset": "objects", "split": "train", "num_images": 9, "size": 32}
    retrieval = {"name": "retrieval", "layer": layer, "pool": {"max": 1}}
    content = {
        "results": "out/",
        "datasets": {"d": dataset},
        "pretexts": {"r": {"task": "random", "backbone": "caffenet"}},
        "features": {"f": {"model": "r", "layer": "conv4", "pool": {"max": 1}}},
        "clusters": {"c": {"features": "f", "data": "d", "k": k}},
        "evaluations": {"e": {"protocol": retrieval, "models": ["r"], "test": "d"}},
    }
    return outdated_outputs(complete(content))


def test_outdated_outputs_have_another_spec_and_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert outdated() == []  # nothing exists
    spec = Synthetic(root="w", subset="objects", split="train", num_images=9, size=32)
    index.run(spec, output=Path("out/index/d.parquet"), threads=1)
    features = Features.model_validate({"model": "r", "layer": "conv4", "pool": {"max": 1}})
    protocol = Retrieval.model_validate({"layer": "conv4", "pool": {"max": 1}})
    write_json(Path("out/cluster/c/manifest.json"), {"spec": {"data": "d", "features": "f", "k": 3}})
    write_json(Path("out/features/f/d/manifest.json"), {"spec": json.loads(features.canonical())})
    write_json(Path("out/evaluate/e/r.json"), {"protocol": json.loads(protocol.canonical())})
    assert outdated() == []
    assert outdated(k=2) == ["out/cluster/c/manifest.json"]
    assert outdated(root="v") == ["out/index/d.parquet"]
    assert outdated(layer="conv3") == ["out/evaluate/e/r.json"]
    record = Path(".snakemake/metadata/b3V0L2NsdXN0ZXIvYy9tYW5pZmVzdC5qc29u")  # base64 of the path
    write_json(record, {})
    assert outdated(k=2) == []  # Snakemake's own comparison decides
    Path("out/index/d.parquet").write_bytes(b"damaged")
    assert outdated() == ["out/index/d.parquet"]
