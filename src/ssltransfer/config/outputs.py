"""Paths of the results of a configuration, as the rules of the workflow write them."""

import re

from ssltransfer.config.config import Config


def index_path(config: Config, dataset: str) -> str:
    """The index for all readers of images: of the files, of the cache, of the clips of videos, or of chosen images."""
    entry = config.datasets[dataset]
    stage = "motion" if entry.format == "video" else "cache" if entry.cache else "index"
    return f"{config.results}/{'curate' if entry.curate else stage}/{dataset}.parquet"


def model_path(config: Config, model: str) -> str:
    """The manifest of a pretext or a student."""
    return f"{config.results}/{config.model(model).stage}/{model}/manifest.json"


def report_path(config: Config) -> str:
    """The page of the report, or of its only table."""
    folder = f"{config.results}/report"
    if config.table is None:
        return f"{folder}/index.html"
    return f"{folder}/tables/{re.sub(r'[^a-z0-9]+', '-', config.table.lower()).strip('-')}/index.html"


def export_paths(config: Config) -> list[str]:
    """The exported files; a card is beside each one."""
    return [f"{config.results}/export/{name}" for name in config.exports]


def report_inputs(config: Config) -> dict[str, list[str]]:
    """All results that the report reads: option of the command `report` -> paths."""
    results = config.results
    return {
        "indexes": [index_path(config, dataset) for dataset in config.datasets],
        "models": [model_path(config, name) for name in config.models],
        "features": [
            f"{results}/features/{name}/{data}/manifest.json"
            for name in config.features
            for data in sorted(config.datasets_of_features(name))
        ],
        "clusters": [f"{results}/cluster/{name}/manifest.json" for name in config.clusters],
        "labels": [f"{results}/label/{cluster}/{data}.parquet" for cluster, data in sorted(config.labels())],
        "metrics": [
            f"{results}/evaluate/{evaluation}/{model}.json"
            for evaluation, models in config.rows.items()
            for model in models
        ],
    }
