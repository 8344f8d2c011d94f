"""Warnings about settings that are valid, but with which a network rarely becomes better than a random one."""

from collections.abc import Iterator

from ssltransfer.config import Config
from ssltransfer.config.methods import Compress2q, ContrastWithOthers
from ssltransfer.config.schedule import Schedule
from ssltransfer.planning.costs import images

IMAGES_PER_CLUSTER = 20
MIN_UPDATES = 500  # docs/results.md, "What makes a small run fail"
RANDOM_SHARE = 0.05  # of the random start in the final momentum encoder; chosen


def advice(config: Config) -> Iterator[str]:
    """A sentence for each doubtful setting.

    Too many clusters, a queue larger than the dataset, too few updates of a network or of a momentum encoder.

    Entries on datasets of unknown size are skipped.
    """
    for name, cluster in config.clusters.items():
        n = images(config, cluster.data)
        if n and cluster.k * IMAGES_PER_CLUSTER > n:
            yield (
                f"clusters.{name}.k: {cluster.k} clusters of {n} images are {n / cluster.k:.1f} images per cluster; "
                f"with fewer than {IMAGES_PER_CLUSTER} the labels are mostly noise."
            )
    for name, student in config.students.items():
        n, method = images(config, student.data), student.method
        if n and isinstance(method, ContrastWithOthers) and (refusal := method.refusal(n)):
            yield f"students.{name}.method.{refusal}"
        yield from _few_updates(student.schedule, n, f"students.{name}")
        if isinstance(method, Compress2q):
            yield from _slow_encoder(method.momentum, student.schedule, n, f"students.{name}")
    for name, pretext in config.pretexts.items():
        if pretext.schedule and pretext.data:
            yield from _few_updates(pretext.schedule, images(config, pretext.data), f"pretexts.{name}")


def _updates(schedule: Schedule, n: int | None) -> int | None:
    return schedule.steps or (schedule.for_images(n).total_steps(n) if n else None)


def _few_updates(schedule: Schedule, n: int | None, where: str) -> Iterator[str]:
    updates = _updates(schedule, n)
    if updates is not None and updates < MIN_UPDATES:
        yield (
            f"{where}.schedule: {updates} updates rarely suffice to beat a random network; train for {MIN_UPDATES} or "
            "more (more epochs or a smaller batch)."
        )


def _slow_encoder(momentum: float, schedule: Schedule, n: int | None, where: str) -> Iterator[str]:
    updates = _updates(schedule, n)
    if updates is not None and momentum**updates > RANDOM_SHARE:
        yield (
            f"{where}.method.momentum: after {updates} updates {momentum**updates:.0%} of the momentum encoder are its "
            "random start; take a smaller momentum, such as 0.99."
        )
