"""Curated datasets take their options from the dataset whose clusters they are chosen from."""

from collections.abc import Mapping
from typing import Any

from ssltransfer.config.base import ConfigError, suggest


def with_source_options(datasets: Mapping[str, Any], clusters: Mapping[str, Any]) -> dict[str, Any]:
    """The datasets, each `{curate: {cluster, ...}}` with the options of the dataset of its cluster.

    Args:
        datasets, clusters: the sections of the configuration, without sweeps.

    Raises:
        ConfigError: a curated dataset has other options, names no cluster, or is chosen from its own clusters.
    """
    return {name: _completed(name, datasets, clusters, ()) for name in datasets}


def _completed(name: str, datasets: Mapping[str, Any], clusters: Mapping[str, Any], users: tuple[str, ...]) -> Any:
    entry = datasets[name]
    if not isinstance(entry, dict) or not isinstance(entry.get("curate"), dict):
        return entry
    where, cluster = f"datasets.{name}.curate", str(entry["curate"].get("cluster"))
    for other in entry.keys() - {"curate"}:
        raise ConfigError(f"{where}: its images are those of the dataset that was clustered; remove `{other}`.")
    if cluster not in clusters:
        raise ConfigError(f"{where}.cluster: no cluster is called {cluster!r}{suggest(cluster, clusters)}")
    source = str(clusters[cluster].get("data")) if isinstance(clusters[cluster], dict) else ""
    if source not in datasets:
        raise ConfigError(f"clusters.{cluster}.data: no dataset is called {source!r}{suggest(source, datasets)}")
    if source in (name, *users):
        raise ConfigError(f"{where}: circular dependency: {' <- '.join([*users, name, source])}.")
    return {**_completed(source, datasets, clusters, (*users, name)), "curate": entry["curate"]}
