"""An extraction that is killed at a chosen moment; run by test_features.py in a process of its own.

Globals given: spec (JSON), model, data, output, log (paths), chunk_bytes, kill ("", "after N", "half N", "end"), and
shard ("" or such as "1-of-2").
The number of every chunk that is computed is written to the log.
"""

import os
import signal
from pathlib import Path

import numpy as np

from ssltransfer.artifacts import features as artifact
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.entities import Features
from ssltransfer.stages import features

given = globals()
artifact.CHUNK_BYTES = given["chunk_bytes"]
write = artifact.FeatureStore.write


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killing(store: artifact.FeatureStore, chunk: int, values: np.ndarray) -> None:
    with Path(given["log"]).open("a") as log:
        log.write(f"{chunk}\n")
    if given["kill"] == f"half {chunk}":
        file = store.chunk_file(chunk)
        file.parent.mkdir(parents=True, exist_ok=True)
        # As the store's own writer leaves it: a file beside, under a name of its own.
        file.with_name(f"{file.name}.0123.partial").write_bytes(values.tobytes()[: values.nbytes // 2])
        die()
    write(store, chunk, values)
    if given["kill"] == f"after {chunk}":
        die()


artifact.FeatureStore.write = killing  # type: ignore[method-assign]
if given["kill"] == "end":
    WorkDir.finish = lambda *_, **__: die()  # type: ignore[method-assign]
paths = {key: Path(given[key]) for key in ("model", "data", "output")}
features.run(Features.parse(given["spec"]), **paths, shard=given["shard"] or None, threads=1)
