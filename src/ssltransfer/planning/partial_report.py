"""The report of the results so far, during a run."""

from pathlib import Path
from typing import Any

from ssltransfer.artifacts.outdated import current_results
from ssltransfer.config import Config
from ssltransfer.config.outputs import report_inputs
from ssltransfer.stages.report import run


def write_partial_report(config: Config) -> Path:
    """Write `report/partial/index.html` below the results from all current results; missing cells are blank.

    It only reads results. So it needs no lock of Snakemake, and does not change what Snakemake makes.
    """
    wanted = report_inputs(config)
    finished = current_results(config, [path for paths in wanted.values() for path in paths])
    total = sum(map(len, wanted.values()))
    title = f"{config.report.title} (so far: {len(finished)} of {total} results)"
    output = Path(config.results, "report", "partial", "index.html")
    inputs: dict[str, Any] = {kind: [Path(one) for one in paths if one in finished] for kind, paths in wanted.items()}
    run(config.report.model_copy(update={"title": title}), output=output, partial=True, **inputs)
    return output
