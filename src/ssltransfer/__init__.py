"""Move knowledge from any visual representation into any network through pseudo-labels, and measure it."""

import os
import sys

__version__ = "0.1.0"

if sys.platform == "win32":
    sys.exit("ssltransfer: Windows itself is not supported; install and run it in WSL2 (wsl --install).")

# A waiting OpenMP thread spins 300,000 times by default and takes the core from other processes, so training on a
# shared machine is several times slower (docs/performance.md, "Busy machines"). libgomp reads this when it is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
