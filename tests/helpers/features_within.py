"""Extraction under a memory budget; run by test_features.py in a process of its own.

Arguments: model, data, output, budget in MB. Prints the store's size in bytes and the most memory that the extraction
held beyond what the process held before it, in bytes.
"""

import resource
import sys
from pathlib import Path

from ssltransfer.artifacts import features as artifact
from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.index import read_index
from ssltransfer.config.entities import Features
from ssltransfer.models.weights import read_model
from ssltransfer.stages import features

model, data, output, budget = (*map(Path, sys.argv[1:4]), int(sys.argv[4]) << 20)
artifact.CHUNK_BYTES = 8 << 20
read_index(data)
read_model(model)  # what torch holds by itself does not count
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
# Private writable memory, whether touched or not: the stacks and arenas of a few threads are let through.
resource.setrlimit(resource.RLIMIT_DATA, ((int(status["VmData"].split()[0]) << 10) + budget + (128 << 20),) * 2)
features.run(Features(model="m", layer="conv1"), model=model, data=data, output=output, threads=1)
store, _ = open_features(output)
held = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
print(store.shape[0] * store.shape[1] * store.dtype.itemsize, held)
