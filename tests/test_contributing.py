"""The worked example of CONTRIBUTING.md: two files make a pretext task."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SPEC = {
    "task": "mirror",
    "backbone": {"name": "caffenet", "width_mult": 0.125, "img_size": 64, "stem_stride": 2, "bn": True},
    "data": "objects",
    "schedule": {"steps": 3, "batch_size": 16},
}


def test_worked_example_is_listed_and_trains(objects_path: Path, tmp_path: Path) -> None:
    """Both code blocks, written to the files that the text names in a copy of the package; nothing else is changed."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"\*\*\d\. .*?\*\* in `([^`]+)`.*?```python\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in blocks] == [
        "src/ssltransfer/config/tasks/mirror.py",
        "src/ssltransfer/tasks/pretext/mirror.py",
    ]
    for name, code in blocks:
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(code, encoding="utf-8")

    def ssltransfer(*words: str) -> str:
        command = [sys.executable, "-c", "import sys; from ssltransfer.cli import main; sys.exit(main())", *words]
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "Mirror: was the image flipped left to right?" in ssltransfer("list", "tasks")
    words = ["--data", str(objects_path), "--output", "m/manifest.json", "--threads", "1"]
    ssltransfer("pretext", "--spec", json.dumps(SPEC), *words)
    curve = [json.loads(line) for line in (tmp_path / "m/curve.jsonl").read_text().splitlines()]
    assert len(curve) == 3 and abs(curve[0]["loss"] - math.log(2)) < 0.5
    assert (tmp_path / "m/backbone.safetensors").exists()
