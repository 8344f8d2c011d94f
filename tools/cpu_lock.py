"""Print the lock file for a machine without a GPU: without CUDA, torch and torchvision, with faiss-cpu.

    python tools/cpu_lock.py envs/requirements.lock

uv installs torch and torchvision from PyTorch's own index of CPU builds (`make TORCH=cpu`).
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

CUDA = re.compile("cuda-|nvidia-|triton|torch|faiss-gpu")


def cpu_lines(lines: list[str]) -> Iterator[str]:
    """The lines of a lock for CPUs. A package is one line that starts with its name, and one line per hash."""
    kept = True
    for line in lines:
        if line[:1].isalpha():
            kept = not CUDA.match(line)
            if line.startswith("faiss-cpu"):
                line = re.sub(r" ;[^\\]*", " ", line)  # everywhere
        if kept:
            yield line


if __name__ == "__main__":
    print("\n".join(cpu_lines(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines())))
