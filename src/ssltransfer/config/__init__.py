"""What may be said, its defaults and its limits, once. Imports no torch: Snakemake reads it at every start."""

from ssltransfer.config.base import ConfigError
from ssltransfer.config.config import Config, ModelEntry
from ssltransfer.config.load import complete, read_config

__all__ = ["Config", "ConfigError", "ModelEntry", "complete", "read_config"]
