"""Move knowledge from any visual representation into any network through pseudo-labels, and measure it."""

__version__ = "0.1.0"
