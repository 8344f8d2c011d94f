"""The HTML report: tables, plots and pages."""
