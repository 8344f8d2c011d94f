"""The README's way with two folders of one's own, on real images: Tiny-ImageNet and Intel's scenes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ssltransfer.artifacts.index import read_index
from ssltransfer.artifacts.metrics import read_metrics

REPOSITORY = Path(__file__).parents[2]
SNAKEMAKE = Path(sys.executable).with_name("snakemake")


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_own_images_student_and_pretext_beat_a_random_network(real_data: Path, tmp_path: Path) -> None:
    link_classes(real_data / "objects" / "tiny_imagenet", tmp_path / "data" / "learn")
    link_classes(real_data / "scenes" / "intel", tmp_path / "data" / "train")
    shutil.copy(REPOSITORY / "config" / "own_images.yaml", tmp_path)
    assert len((tmp_path / "own_images.yaml").read_text().splitlines()) < 25
    words: list[str | Path] = ["--snakefile", REPOSITORY / "Snakefile", "--configfile", "own_images.yaml"]
    words += ["--cores", "all"]
    environment = {**os.environ, "PATH": f"{SNAKEMAKE.parent}:{os.environ['PATH']}"}
    environment.pop("SSLTRANSFER_WORKERS", None)
    subprocess.run([SNAKEMAKE, *words, "--quiet", "rules"], cwd=tmp_path, env=environment, check=True)
    results = tmp_path / "results" / "own"
    train, val = (read_index(results / "index" / f"{name}.parquet") for name in ("learn", "learn-val"))
    assert len(train) + len(val) > 5500 and train.classes == val.classes and len(train.classes) == 16
    random, supervised = "random-resnet18-w0.25-64px", "supervised-resnet18-w0.25-64px"
    for name in ("learn", "train"):
        for layer in ("block2", "block4"):
            rows = {
                file.stem: read_metrics(file).mean()
                for file in (results / "evaluate" / f"{layer}-{name}").glob("*.json")
                if not file.stem.endswith(".run")
            }
            assert set(rows) == {"jigsawpp", "cc", random, f"{supervised}-{name}"}
            # The last layer of a small Jigsaw++ network is no better than a random one; its student's is.
            learned = min(rows["jigsawpp"], rows["cc"]) if layer == "block2" else rows["cc"]
            assert learned > rows[random], rows
            if (layer, name) == ("block4", "learn"):  # few labels of the other folder may be worse than the student
                assert rows[f"{supervised}-{name}"] > rows["cc"], rows
    page = (results / "report" / "index.html").read_text()
    for name in ("jigsawpp", "cc", random, f"{supervised}-learn", f"{supervised}-train"):
        assert name in page


def link_classes(splits: Path, root: Path) -> None:
    """Folders of classes without train/ and val/: root/CLASS/SPLIT links to splits/SPLIT/CLASS."""
    for split in ("train", "val"):
        for folder in (splits / split).iterdir():
            (root / folder.name).mkdir(parents=True, exist_ok=True)
            (root / folder.name / split).symlink_to(folder)
