"""Clusters, labels and curates a store under a limit on the memory of this process; started by test_cluster_memory.py.

The limit is RLIMIT_DATA, all private writable memory: what the interpreter and the libraries took to start, plus the
budget. Prints one JSON line.
"""

import json
import os
import resource
import sys
import threading
from pathlib import Path

import psutil

from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.index import read_index
from ssltransfer.config.entities import Cluster
from ssltransfer.config.formats import CurateOptions
from ssltransfer.logs import configure_logging
from ssltransfer.stages import cluster, curate, label


def data_bytes():
    """Private writable memory of this process."""
    return psutil.Process().memory_info().data


def main():
    """Warm up on a small store, limit, then work on the large one."""
    configure_logging()
    threading.stack_size(1 << 20)  # stacks count too, and how many threads read depends on their timing
    small, small_index, large, index, results = map(Path, sys.argv[1:])
    budget = int(os.environ["SSLTRANSFER_MEMORY_MB"]) << 20
    spec = Cluster(features="f", data="d", k=64, levels=(4,), resample=1, max_iter=1, tolerance=0.0, init="random")
    curated = CurateOptions(cluster="c", max_similarity=0.999, num_images=1000)
    warm = results / "warm" / "manifest.json"
    cluster.run(spec, features=small, output=warm, threads=2)
    labels = results / "warm.parquet"
    label.run(spec="", cluster=warm, features=small, index=small_index, output=labels, threads=2)
    few = {"data": small_index, "cluster": warm, "labels": labels, "features": small}
    curate.run(curated, output=results / "few" / "d.parquet", threads=2, **few)

    limit = data_bytes() + budget
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    output = results / "cluster" / "manifest.json"
    cluster.run(spec, features=large, output=output, threads=2)
    label.run(spec="", cluster=output, features=large, index=index, output=results / "l.parquet", threads=2)
    many = {"data": index, "cluster": output, "labels": results / "l.parquet", "features": large}
    curate.run(curated, output=results / "many" / "d.parquet", threads=2, **many)
    repeated = len(read_index(results / "many" / "d.parquet").skipped)
    store, _ = open_features(large)
    try:
        store.read(slice(None))
        whole = "read"
    except MemoryError:
        whole = "refused"
    size = store.shape[0] * store.shape[1] * store.dtype.itemsize
    print(json.dumps({"whole": whole, "ratio": size / budget, "repeated": repeated}))


if __name__ == "__main__":
    main()
