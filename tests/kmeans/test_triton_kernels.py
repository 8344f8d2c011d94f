"""The Triton kernels in Triton's interpreter, and on a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import HELPERS


def test_triton_kernels_agree_with_torch_in_the_interpreter():
    pytest.importorskip("triton", reason="torch has no Triton for this platform")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    words = [sys.executable, str(HELPERS / "triton_interpreted.py")]
    run = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="Triton compiles for real GPUs only")
def test_triton_kernels_agree_with_torch_on_a_gpu():
    words = [sys.executable, str(HELPERS / "triton_interpreted.py"), "cuda"]
    run = subprocess.run(words, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 16


def test_docs_quote_the_arithmetic():
    root = Path(__file__).parents[2]
    printed = subprocess.run([sys.executable, root / "tools/gpu_arithmetic.py"], capture_output=True, text=True).stdout
    assert printed and "".join(f"      {line}\n" for line in printed.splitlines()) in (
        root / "docs/performance.md"
    ).read_text(encoding="utf-8")
