"""One pass over the images of a set, of which several processes take batches in turns."""

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
    """What `measure` finds of each batch of an index, in order, the same in every process.

    Batches are cut alike whatever the number of processes, so that what is found does not depend on it.

    Args:
        index: the images, taken as they stand.
        view: CPU part.
        batch: images of a batch; the last one of a pass may have fewer.
        measure: gets a batch on the device, and gives back what can be pickled and lies in host memory.
        devices: this process among those that call this together.
        what: is done, for the display.
        seed: of what the view draws.
        times: passes over all images, one after the other; a batch's `epochs` say which.

    Raises:
        ArtifactError: a image cannot be read any more.
    """
    n, world = len(index), devices.world
    spans = [range(start, min(n, start + batch)) for start in range(0, n, batch)]
    keys = ([(sample, again) for sample in span] for again in range(times) for span in spans)
    mine = islice(keys, devices.rank, None, world)
    progress = Progress(what, 0, -(-times * len(spans) // world), batch * world)
    found = []
    for one in load_batches(index, view, mine, seed=seed, workers=devices.workers):
        found.append(measure(one.to(devices.device)))
        progress.step()
        progress.log(f"{n} images" + (f", {times} times" if times > 1 else ""))
    progress.close()
    parts = devices.all_gather(found)
    # The first process has at least as many as any other.
    return [part[turn] for turn in range(len(parts[0])) for part in parts if turn < len(part)]
