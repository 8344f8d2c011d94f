"""Move knowledge from any visual representation into any network through pseudo-labels, and measure it."""

import importlib
import os
import sys
from typing import Any

__version__ = "0.1.0"

# Names of ssltransfer.api, which is imported at the first use: torch takes seconds.
_API = (
    *("load_model", "Model", "Embeddings", "search", "cluster", "assign", "Assignment"),
    *("open_features", "read_index", "read_labels", "read_metrics"),
)
__all__ = ["__version__", *_API]  # pyright: ignore[reportUnsupportedDunderAll]

if sys.platform == "win32":
    sys.exit("ssltransfer: Windows itself is not supported; install and run it in WSL2 (wsl --install).")

# A waiting OpenMP thread spins 300,000 times by default and takes the core from other processes, so training on a
# shared machine is several times slower (docs/performance.md, "Busy machines"). libgomp reads this when it is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(importlib.import_module("ssltransfer.api"), name)
    raise AttributeError(f"module 'ssltransfer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
