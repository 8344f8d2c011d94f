"""Report stage: all results in one self-contained HTML file."""

from pathlib import Path

from ssltransfer.artifacts.files import write_text
from ssltransfer.config.entities import Report
from ssltransfer.config.references import check_references
from ssltransfer.logs import logger
from ssltransfer.report.claims import build_claims, claims_as_text
from ssltransfer.report.figures import build_figures
from ssltransfer.report.load_results import load_results
from ssltransfer.report.page import render
from ssltransfer.report.plots import svg_file
from ssltransfer.report.tables import as_csv, as_text, build_tables


def run(
    spec: Report,
    *,
    output: Path,
    indexes: list[Path],
    models: list[Path],
    features: list[Path],
    clusters: list[Path],
    labels: list[Path],
    metrics: list[Path],
    threads: int | None = None,
    partial: bool = False,
) -> None:
    """Write the report, with tables.csv, summary.txt and figures/*.svg beside it, and print the summary.

    Equal inputs, including the run.json files, give equal bytes: the report contains no date.

    `models` are manifests of pretexts and students; weights and learning curves are read from the same folders.
    `threads` is not used, but every stage takes it. With `partial`, results that tables or figures name may be
    missing.

    Raises:
        ArtifactError: an input is missing or belongs to another stage.
        ConfigError: a table names an unknown evaluation, model or reference.
    """
    check_references(spec)
    results = load_results(indexes, models, features, clusters, labels, metrics, partial=partial)
    tables = build_tables(spec, results)
    claims = build_claims(spec, results)
    figures = build_figures(spec, results)
    page = render(spec, results, tables, claims, figures)
    terminal = as_text(tables) + claims_as_text(claims)
    write_text(output.with_name("tables.csv"), as_csv(tables))
    write_text(output.with_name("summary.txt"), terminal)
    for figure in figures:
        write_text(output.parent / "figures" / f"{figure.file}.svg", svg_file(figure))
    write_text(output, page)
    logger.info(f"{terminal}\nreport: {output} ({len(page.encode()) / 1e6:.1f} MB)")
