"""The HTML page."""

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ssltransfer.config.entities import Claim, Report
from ssltransfer.report import provenance, sections, text
from ssltransfer.report.claims import Verdict
from ssltransfer.report.clusterings import clusterings
from ssltransfer.report.dag import lay_out
from ssltransfer.report.evaluations import evaluation_details
from ssltransfer.report.figures import FigureData
from ssltransfer.report.load_results import Results
from ssltransfer.report.plots import Plots
from ssltransfer.report.students import students
from ssltransfer.report.summary import summary
from ssltransfer.report.tables import Table


def render(
    spec: Report,
    results: Results,
    tables: list[Table],
    claims: list[tuple[Claim, dict[str, Verdict]]],
    figures: list[FigureData],
) -> str:
    """The page as one HTML text that loads nothing from elsewhere; equal results give equal text."""
    environment, style = make_environment()
    plots = Plots()
    page: str = environment.get_template("report.html.j2").render(
        style=style,
        report=spec,
        results=results,
        summary=summary(results),
        flow=lay_out(results),
        tables=tables,
        claims=claims,
        students=list(students(results)),
        figures=[(figure, plots.panels(figure)) for figure in figures],
        curves=list(sections.learning_curves(results, plots)),
        snapshot_curves=sections.snapshot_curves(results, plots),
        layer_tables=list(sections.layer_tables(results, plots)),
        layer_mixes=sections.layer_mixes(results, plots),
        clusterings=list(clusterings(spec, results, plots)),
        filters=sections.first_filters(results),
        evaluations=list(evaluation_details(results, plots)),
        cost=provenance.run_cost(results),
        datasets=list(sections.datasets(results)),
        environment=provenance.environment(results),
        specs=provenance.specs(results),
    )
    return page


def make_environment() -> tuple[Environment, Markup]:
    """The templates with their filters, and the style sheet of all pages."""
    loader = PackageLoader("ssltransfer.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": text.number, "duration": text.duration}
    environment.globals |= {"anchor": text.anchor, "count": text.count, "with_std": text.with_std}
    # Our own style sheet: safe as markup.
    return environment, Markup(loader.get_source(environment, "report.css")[0])
