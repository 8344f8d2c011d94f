"""The lock for CPUs: that of all, without CUDA and torch, with faiss-cpu on every platform."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "envs" / "requirements.lock"


def packages(text: str) -> dict[str, str]:
    """Name -> the lines of a package."""
    blocks = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)
    return {re.split("==", block)[0]: block for block in blocks if block}


def test_cpu_lock_differs_only_in_cuda_torch_and_faiss():
    words = [sys.executable, str(ROOT / "tools" / "cpu_lock.py"), str(LOCK)]
    written = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    everything, cpu = packages(LOCK.read_text()), packages(written)
    missing = set(everything) - set(cpu)
    assert {"torch", "torchvision", "triton", "faiss-gpu", "nvidia-cublas-cu12", "cuda-toolkit"} <= missing
    assert not [name for name in missing if not re.match("cuda-|nvidia-|torch|torchvision$|triton$|faiss-gpu$", name)]
    assert re.match(r"faiss-cpu==[\d.]+ +\\\n", cpu["faiss-cpu"])
    assert all("--hash=sha256:" in block for block in cpu.values())
    assert all(block == everything[name] for name, block in cpu.items() if name != "faiss-cpu")
