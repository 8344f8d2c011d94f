"""Outputs that were made with other options and of which Snakemake has no record, such as copied results."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ssltransfer.artifacts.files import ArtifactError, file_digest, read_json
from ssltransfer.config.base import Spec
from ssltransfer.config.config import Config

RECORDS = Path(".snakemake", "metadata")


def outdated_outputs(config: Config) -> list[str]:
    """Paths of outputs without a record whose own spec differs from the configuration, in the order of the stages."""
    return [
        output
        for output, spec in _specs(config)
        if Path(output).is_file() and not _record(output).is_file() and _differs(Path(output), spec)
    ]


def is_current(output: str, spec: Spec) -> bool:
    """Whether a manifest or an index exists and was made with this spec."""
    return Path(output).is_file() and not _differs(Path(output), {"spec": _content(spec)})


def current_results(config: Config, outputs: Iterable[str]) -> set[str]:
    """Those outputs that exist and were made with this configuration, from inputs that are current too."""
    specs = dict(_specs(config))
    made = [
        output for output in outputs if Path(output).is_file() and not _differs(Path(output), specs.get(output, {}))
    ]
    digests = {output: file_digest(Path(output)) for output in made}
    inputs = {output: _inputs(Path(output)) for output in made}
    while outdated := {output for output in digests if not inputs[output] <= set(digests.values())}:
        digests = {output: digest for output, digest in digests.items() if output not in outdated}
    return set(digests)


def _inputs(output: Path) -> set[str]:
    """Digests of the inputs that a result records."""
    if output.suffix == ".parquet":
        return set(filter(None, [_schema(output).get("cluster")]))  # of labels and curated datasets
    return {digest for digests in read_json(output)["inputs"].values() for digest in digests}


def _specs(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every output that holds its spec, and that spec."""
    results = config.results
    for name, dataset in config.datasets.items():
        made = _content(dataset)
        if dataset.curate is None:
            yield f"{results}/index/{name}.parquet", {"spec": made}
        for stage in ("cache", "motion", "curate"):
            if options := getattr(dataset, stage, None):
                made = made | {stage: _content(options)}
                if dataset.curate is None or stage == "curate":
                    yield f"{results}/{stage}/{name}.parquet", {"spec": made}
    for stage, entries in (("pretext", config.pretexts), ("cluster", config.clusters), ("student", config.students)):
        for name, entry in entries.items():
            yield f"{results}/{stage}/{name}/manifest.json", {"spec": _content(entry)}
    for name, features in config.features.items():
        for data in sorted(config.datasets_of_features(name)):
            yield f"{results}/features/{name}/{data}/manifest.json", {"spec": _content(features)}
    for name, models in config.rows.items():
        for model in models:
            yield f"{results}/evaluate/{name}/{model}.json", {"protocol": _content(config.evaluations[name].protocol)}


def _content(spec: Spec) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(spec.canonical())
    return content


def _record(output: str) -> Path:
    """Snakemake's own record of an output (`snakemake.persistence`): parts of long names are folders."""
    name = urlsafe_b64encode(output.encode()).decode()
    parts = [name[start : start + 254] for start in range(0, len(name), 254)]
    return RECORDS.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def _differs(output: Path, spec: dict[str, Any]) -> bool:
    try:
        content = _schema(output) if output.suffix == ".parquet" else read_json(output)
    except ArtifactError:
        return True
    return any(content.get(key) != value for key, value in spec.items())


def _schema(output: Path) -> dict[str, Any]:
    import pyarrow as pa  # Snakemake reads this module in every job
    import pyarrow.parquet as pq

    try:
        content: dict[str, Any] = json.loads((pq.read_schema(output).metadata or {}).get(b"ssltransfer", b"{}"))
    except (OSError, pa.ArrowInvalid):
        return {}
    return content
