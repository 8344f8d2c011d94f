"""Report: everything that was made and measured, as one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ssltransfer.artifacts.files import write_text
from ssltransfer.config.entities import Report
from ssltransfer.config.references import check_references
from ssltransfer.report import clusterings, sections, text
from ssltransfer.report import provenance as traces
from ssltransfer.report.dag import lay_out
from ssltransfer.report.load_results import Results, gather
from ssltransfer.report.plots import Plots
from ssltransfer.report.summary import summary
from ssltransfer.report.tables import Table, as_csv, as_text, build_tables


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
) -> None:
    """Write the report, tables.csv and summary.txt beside it, and print the latter.

    Equal inputs (run.json beside them included) give equal bytes: no date stands in the report.

    Args:
        spec: title, tables and size of the montages.
        output: the HTML file, written last.
        indexes: index/{dataset}.parquet of every dataset.
        models: manifests of pretexts and students; weights and learning curves are found beside them.
        features: manifests of features.
        clusters: manifests of clusterings.
        labels: label/{cluster}/{dataset}.parquet.
        metrics: evaluate/{evaluation}/{model}.json.
        threads: not used.

    Raises:
        ArtifactError: an input is missing or not what it should be.
        ConfigError: a table names what there is not.
    """
    check_references(spec)
    results = gather(indexes, models, features, clusters, labels, metrics)
    tables = build_tables(spec, results)
    page = render(spec, results, tables)
    terminal = as_text(tables)
    write_text(output.with_name("tables.csv"), as_csv(tables))
    write_text(output.with_name("summary.txt"), terminal)
    write_text(output, page)
    print(f"{terminal}\nreport: {output} ({len(page.encode()) / 1e6:.1f} MB)", flush=True)


def render(spec: Report, results: Results, tables: list[Table]) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("ssltransfer.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": text.number,
        "duration": text.duration,
        "shorten": text.shorten,
        "listed": text.listed,
    }
    environment.globals |= {"anchor": text.anchor, "count": text.count, "spread": text.with_spread}
    loader = environment.loader
    assert loader is not None
    plots = Plots()
    page: str = environment.get_template("report.html.j2").render(
        # The page's own style sheet: nothing in it comes from outside.
        style=Markup(loader.get_source(environment, "report.css")[0]),
        report=spec,
        results=results,
        summary=summary(results),
        flow=lay_out(results),
        tables=tables,
        curves=list(sections.curves(results, plots)),
        snapshot_curves=sections.snapshot_curves(results, plots),
        layer_curves=list(sections.layer_curves(results, plots)),
        clusterings=list(clusterings.clusterings(spec, results, plots)),
        filters=sections.first_filters(results),
        evaluations=list(sections.evaluation_details(results, plots)),
        costs=traces.costs(results),
        datasets=list(sections.datasets(results)),
        environment=traces.environment(results),
        specs=traces.specs(results),
    )
    return page
