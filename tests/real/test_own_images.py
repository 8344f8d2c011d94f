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
@pytest.mark.timeout(1800)
def test_own_images_config_gives_student_and_report(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "learn").symlink_to(real_data / "objects" / "tiny_imagenet")
    (tmp_path / "data" / "train").symlink_to(real_data / "scenes" / "intel")
    shutil.copy(REPOSITORY / "config" / "own_images.yaml", tmp_path)
    assert len((tmp_path / "own_images.yaml").read_text().splitlines()) < 20
    words: list[str | Path] = ["--snakefile", REPOSITORY / "Snakefile", "--configfile", "own_images.yaml"]
    words += ["--cores", "all"]
    environment = {**os.environ, "PATH": f"{SNAKEMAKE.parent}:{os.environ['PATH']}"}
    environment.pop("SSLTRANSFER_WORKERS", None)
    subprocess.run([SNAKEMAKE, *words, "--quiet", "rules"], cwd=tmp_path, env=environment, check=True)
    results = tmp_path / "results" / "own"
    index = read_index(results / "index" / "learn.parquet")
    assert len(index) > 4700 and len(index.classes) == 16
    random, supervised = (
        "random-caffenet-w0.25-64px-s2-bn1",
        "supervised-caffenet-w0.25-64px-s2-bn1",
    )
    for name in ("learn", "train"):
        rows = {
            file.stem: read_metrics(file).mean()
            for file in (results / "evaluate" / f"on-{name}").glob("*.json")
            if not file.stem.endswith(".run")
        }
        assert set(rows) == {"jigsaw", "cc", random, f"{supervised}-{name}"}
        chance = read_metrics(results / "evaluate" / f"on-{name}" / "jigsaw.json").chance
        assert chance is not None
        assert rows[f"{supervised}-{name}"] > rows[random] and min(rows.values()) > 1.5 * chance
    page = (results / "report" / "index.html").read_text()
    for name in ("jigsaw", "cc", random, f"{supervised}-learn", f"{supervised}-train"):
        assert name in page
