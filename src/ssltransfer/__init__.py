"""Move knowledge from any visual representation into any network through pseudo-labels, and measure it."""

import importlib
import os
import sys
from typing import Any

__version__ = "0.1.0"

# The public names and their modules, which are imported at the first use: torch takes seconds.
_MODULES = {
    "ssltransfer.api": (
        *("load_model", "Model", "Embeddings", "search", "cluster", "assign", "Assignment"),
        *("open_features", "read_index", "read_labels", "read_metrics"),
    ),
    "ssltransfer.pretext_api": ("pretext_task", "batches"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = ["__version__", "losses", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]

if sys.platform == "win32":
    sys.exit("ssltransfer: Windows itself is not supported; install and run it in WSL2 (wsl --install).")

# A waiting OpenMP thread spins 300,000 times by default and takes the core from other processes, so training on a
# shared machine is several times slower (docs/performance.md, "Busy machines"). libgomp reads this when it is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "losses":
        return importlib.import_module("ssltransfer.losses")
    raise AttributeError(f"module 'ssltransfer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
