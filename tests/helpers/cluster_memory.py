"""Clusters and labels a store under a limit on the memory of this process; started by test_memory.py.

The limit is RLIMIT_DATA, all private writable memory: what the interpreter and the libraries took to start, plus the
budget. Prints one JSON line.
"""

import json
import os
import resource
import sys
from pathlib import Path

import psutil

from ssltransfer.artifacts.features import open_features
from ssltransfer.config.entities import Cluster
from ssltransfer.logs import configure_logging
from ssltransfer.stages import cluster, label


def data_bytes():
    """Private writable memory of this process."""
    return psutil.Process().memory_info().data


def main():
    """Warm up on a small store, limit, then work on the large one."""
    configure_logging()
    small, small_index, large, index, results = map(Path, sys.argv[1:])
    budget = int(os.environ["SSLTRANSFER_MEMORY_MB"]) << 20
    spec = Cluster(features="f", data="d", k=8, max_iter=1, tolerance=0.0, init="random")
    warm = results / "warm" / "manifest.json"
    cluster.run(spec, features=small, output=warm, threads=2)
    label.run(spec="", cluster=warm, features=small, index=small_index, output=results / "warm.parquet", threads=2)

    limit = data_bytes() + budget
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    output = results / "cluster" / "manifest.json"
    cluster.run(spec, features=large, output=output, threads=2)
    label.run(spec="", cluster=output, features=large, index=index, output=results / "l.parquet", threads=2)
    store, _ = open_features(large)
    try:
        store.read(slice(None))
        whole = "read"
    except MemoryError:
        whole = "refused"
    size = store.shape[0] * store.shape[1] * store.dtype.itemsize
    print(json.dumps({"whole": whole, "ratio": size / budget}))


if __name__ == "__main__":
    main()
