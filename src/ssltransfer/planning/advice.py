"""Warnings about settings that are valid, but with which a network rarely becomes better than a random one."""

from collections.abc import Iterator

from ssltransfer.config import Config
from ssltransfer.config.methods import ContrastWithOthers
from ssltransfer.config.schedule import Schedule
from ssltransfer.planning.costs import images

IMAGES_PER_CLUSTER = 20
MIN_UPDATES = 500  # docs/results.md, "What makes a small run fail"


def advice(config: Config) -> Iterator[str]:
    """A sentence for each doubtful setting: too many clusters, a queue larger than the dataset, too few updates.

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
    for name, pretext in config.pretexts.items():
        if pretext.schedule and pretext.data:
            yield from _few_updates(pretext.schedule, images(config, pretext.data), f"pretexts.{name}")


def _few_updates(schedule: Schedule, n: int | None, where: str) -> Iterator[str]:
    updates = schedule.steps or (schedule.total_steps(n) if n else None)
    if updates is not None and updates < MIN_UPDATES:
        yield (
            f"{where}.schedule: {updates} updates rarely suffice to beat a random network; train for {MIN_UPDATES} or "
            "more (more epochs or a smaller batch)."
        )
