"""Check that the lock file can be installed on every platform: each of its packages has a wheel there.

    python tools/check_platforms.py

Asks the package index through uv, which takes seconds and installs nothing. macOS on Intel is missing because torch has
no wheels for it. Windows itself is not supported, but must be able to install the package that says so.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

PLATFORMS = (
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
)
PYTHONS = ("3.11", "3.13")
# Pure Python without a wheel.
SOURCE_ONLY = ("connection-pool",)
MACOS = "14.0"  # the oldest with a wheel of faiss


def problem(lock: Path, platform: str, python: str) -> str:
    """Why the lock cannot be installed; empty if it can."""
    words = ["pip", "compile", "--quiet", "--no-deps", "--no-header", "--only-binary", ":all:"]
    words += [word for name in SOURCE_ONLY for word in ("--no-binary", name)]
    words += ["--python-platform", platform, "--python-version", python, str(lock)]
    uv = Path(sys.executable).with_name("uv")
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": MACOS}
    run = subprocess.run([str(uv), *words], env=environment, capture_output=True, text=True)
    return run.stderr if run.returncode else ""


def main() -> int:
    """Check all platforms; print those that fail."""
    lock = Path(__file__).parents[1] / "envs" / "requirements.lock"
    pairs = list(product(PLATFORMS, PYTHONS))
    with ThreadPoolExecutor() as pool:  # uv waits for the index
        texts = list(pool.map(lambda pair: problem(lock, *pair), pairs))
    for (platform, python), text in zip(pairs, texts, strict=True):
        print(f"{platform}, Python {python}: {text or 'ok'}")
    return int(any(texts))


if __name__ == "__main__":
    sys.exit(main())
