"""Students of every method on real images: nearer to their teacher than a random network."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.helpers.workflow import ROOT, measured, write_config

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(5400)]


def test_methods_keep_some_of_teacher(real_objects: Path, tmp_path: Path) -> None:
    """config/compress_small.yaml on 1,600 photographs of 16 classes and 400 others."""
    config = yaml.safe_load((ROOT / "config/compress_small.yaml").read_text())
    for name, split, limit in (("objects", "train", 1600), ("objects-val", "val", 400)):
        config["datasets"][name] = {"format": "imagefolder", "root": str(real_objects), "split": split, "limit": limit}
    found = {
        model: metrics.mean()
        for model, metrics in measured(write_config(tmp_path, config), tmp_path)["neighbors"].items()
    }
    print(found)
    random = found.pop("random-resnet18-w0.125-48px-s1")
    assert min(value for model, value in found.items() if not model.startswith("random-")) > random
