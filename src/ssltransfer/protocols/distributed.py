"""Map a function over the batches of a set, with several processes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TypeVar

from ssltransfer.artifacts.index import Index
from ssltransfer.data.loader import Batch, load_batches
from ssltransfer.data.transforms import Transform
from ssltransfer.training.devices import Devices
from ssltransfer.training.progress import Progress

T = TypeVar("T")


def distributed_map(
    index: Index,
    view: Transform,
    batch: int,
    measure: Callable[[Batch], T],
    devices: Devices,
    *,
    what: str = "test",
    seed: int = 0,
    times: int = 1,
) -> list[T]:
    """Results of `measure` for each batch of an index, in order, in every process.

    The batches do not depend on the number of processes, so neither do the results.

    Args:
        index: the images, in this order.
        view: CPU transform.
        batch: images per batch; the last one may have fewer.
        measure: batch on the device -> a result that can be pickled, in host memory.
        devices: of this process; all processes call this function.
        what: label of the progress display.
        seed: of the transform's random numbers.
        times: number of passes; `epochs` of a batch is the pass.

    Raises:
        ArtifactError: an image can no longer be read.
    """
    n, world = len(index), devices.world
    spans = [range(start, min(n, start + batch)) for start in range(0, n, batch)]
    keys = ([(sample, again) for sample in span] for again in range(times) for span in spans)
    mine = islice(keys, devices.rank, None, world)
    progress = Progress(what, 0, -(-times * len(spans) // world), batch * world)
    results = []
    for one in load_batches(index, view, mine, seed=seed, workers=devices.workers):
        results.append(measure(one.to(devices.device)))
        progress.step()
        progress.log(f"{n} images" + (f", {times} times" if times > 1 else ""))
    progress.close()
    parts = devices.all_gather(results)
    # The first process has at least as many as any other.
    return [part[turn] for turn in range(len(parts[0])) for part in parts if turn < len(part)]
