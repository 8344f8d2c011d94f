"""Caches whose images are smaller than a job needs."""

import math
from collections.abc import Iterator

from ssltransfer.config import Config


def enlarged(config: Config) -> Iterator[str]:
    """A line for each cache whose images some jobs enlarge."""
    for name, dataset in config.datasets.items():
        # If all images are that small, they are enlarged without a cache too.
        if dataset.cache is None or getattr(dataset, "size", math.inf) <= dataset.cache.short_side:
            continue
        short = dataset.cache.short_side
        wanted = dict.fromkeys(f"{who} ({side})" for who, data, side in _views(config) if data == name and side > short)
        if wanted:
            yield f"The cache of {name} has a short side of {short} pixels and is enlarged by {', '.join(wanted)}."


def _views(config: Config) -> Iterator[tuple[str, str | None, int]]:
    """(stage/name, dataset, short side in pixels) of everything that reads images."""
    for name, pretext in config.pretexts.items():
        for part in pretext.parts.values():
            side = part.task.short_side(part.backbone)
            yield from ((f"pretext/{name}", data, side) for data in (part.data, part.val))
    for name, features in config.features.items():
        if features.file:
            continue
        side = config.model(features.model).backbone.short_side
        yield from ((f"features/{name}", data, side) for data in sorted(config.datasets_of_features(name)))
    for pair in sorted(config.labels()):
        if not config.reads_features(*pair):
            entry = config.features[config.clusters[pair[0]].features]
            yield f"label/{pair[0]}", pair[1], config.model(entry.model).backbone.short_side
    for name, student in config.students.items():
        task = student.pretext.task if student.pretext else None
        side = task.short_side(student.backbone) if task else student.backbone.short_side
        yield from ((f"student/{name}", data, side) for data in (student.data, student.val))
    for name, models in config.rows.items():
        evaluation = config.evaluations[name]
        if evaluation.protocol.input_kind == "features":
            continue
        side = max(config.model(model).backbone.short_side for model in models)
        yield from ((f"evaluate/{name}", data, side) for data in evaluation.datasets)
