"""The part of a configuration that one table of its report needs."""

import fnmatch
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ssltransfer.config.base import ConfigError
from ssltransfer.config.config import Config
from ssltransfer.config.entities import Pretext, Table
from ssltransfer.config.methods import ClusterClassification
from ssltransfer.config.protocols import FeatureProtocol


def only_table(config: Config, title: str) -> Config:
    """The configuration without all that this table does not show or need.

    Its report has this table alone, and a folder of its own. No model is exported.

    Args:
        config: completed.
        title: of a table of the report, or words of it, in upper or lower case.

    Raises:
        ConfigError: no table has these words in its title, or several have.
    """
    table = _find(config, title)
    evaluations = dict.fromkeys(column.partition(":")[0] for column in table.columns)
    rows = {name: tuple(model for model in config.rows[name] if _is_shown(model, table)) for name in evaluations}
    shown = replace(config, rows=rows)
    needed = [("evaluations", name) for name in evaluations]
    for section, name in needed:  # grows
        needed += [one for one in dict.fromkeys(_needs_of(shown, section, name)) if one not in needed]
    sections = ("datasets", "pretexts", "features", "clusters", "students", "evaluations")
    kept: dict[str, Any] = {
        section: {name: entry for name, entry in getattr(config, section).items() if (section, name) in needed}
        for section in sections
    }
    report = config.report.model_copy(update={"tables": (table,), "figures": (), "claims": ()})
    return replace(shown, **kept, report=report, exports={}, table=table.title)


def _find(config: Config, title: str) -> Table:
    tables = config.report.tables
    found = [table for table in tables if title.casefold() in table.title.casefold()]
    exact = [table for table in found if table.title.casefold() == title.casefold()]
    if len(exact or found) == 1:
        return (exact or found)[0]
    titles = "; ".join(table.title for table in found or tables) or "none"
    raise ConfigError(
        f"table {title!r}: {'several tables have' if found else 'no table of the report has'} these words in the "
        f"title; name one of: {titles}."
    )


def _is_shown(model: str, table: Table) -> bool:
    return not table.rows or any(fnmatch.fnmatchcase(model, pattern) for pattern in table.rows)


def _needs_of(config: Config, section: str, name: str) -> Iterator[tuple[str, str]]:
    """Sections and names of the entries that an entry needs directly."""

    def model(of: str) -> tuple[str, str]:
        return ("pretexts" if of in config.pretexts else "students", of)

    if section == "datasets":
        if curate := config.datasets[name].curate:
            yield "clusters", curate.cluster
    elif section == "features":
        if not config.has_file(name):
            yield model(config.features[name].model)
    elif section == "clusters":
        yield "features", config.clusters[name].features
        yield "datasets", config.clusters[name].data
    elif section == "evaluations":
        evaluation = config.evaluations[name]
        yield from (("datasets", data) for data in evaluation.datasets)
        for row in config.rows[name]:
            yield model(row)
            if isinstance(evaluation.protocol, FeatureProtocol):
                yield "features", config.evaluated_features(name, row)
    else:
        spec = config.models[name]
        yield from (model(source) for source in config.sources_of(name))
        yield from (("datasets", data) for data in spec.datasets)
        if not isinstance(spec, Pretext):
            if isinstance(spec.method, ClusterClassification):
                yield "clusters", spec.method.cluster
            if features := config.teacher_features_of(name):
                yield "features", features
