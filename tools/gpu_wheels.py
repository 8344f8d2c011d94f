"""Download the packages that a machine with torch may lack for tools/gpu_check.sh: gpu_wheels.py FOLDER [PYTHON].

The machine has torch, torchvision, Triton, NumPy, SciPy, h5py, Pillow, OpenCV, pyarrow, matplotlib, tqdm, psutil and
pytest, and no network. Versions are those of the lock file. Snakemake and faiss are left out: faiss alone has 100 MB,
and the benchmarks that compare with it are not run.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

NAMES = [
    *("annotated-types", "donfig", "filelock", "google-crc32c", "jinja2", "joblib", "markupsafe", "numcodecs"),
    *("packaging", "pydantic", "pydantic-core", "pytest-timeout", "pyyaml", "safetensors", "scikit-learn"),
    *("simplejpeg", "threadpoolctl", "typing-extensions", "typing-inspection", "zarr"),
]
LOCK = Path(__file__).parents[1] / "envs" / "requirements.lock"
LIMIT = 60 << 20  # bytes


def main(folder: str, python: str = "3.12") -> int:
    """Download, and report the size of the folder."""
    versions = dict(re.findall(r"^([\w.-]+)==([^ ;]+)", LOCK.read_text("utf-8"), re.MULTILINE))
    platforms = [word for glibc in (17, 24, 27, 28, 34) for word in ("--platform", f"manylinux_2_{glibc}_x86_64")]
    words = ["--quiet", "--no-deps", "--only-binary", ":all:", "--python-version", python, "--implementation", "cp"]
    words += [*platforms, "--dest", folder, *(f"{name}=={versions[name]}" for name in NAMES)]
    subprocess.run([sys.executable, "-m", "pip", "download", "--disable-pip-version-check", *words], check=True)
    size = sum(file.stat().st_size for file in Path(folder).glob("*.whl"))
    print(f"{folder}: {len(NAMES)} packages, {size / 1e6:.0f} MB")
    return int(size > LIMIT)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
