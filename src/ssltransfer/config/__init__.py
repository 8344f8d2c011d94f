"""The configuration schema: fields, defaults and constraints. Imports no torch: Snakemake loads it in every job."""

from ssltransfer.config.base import ConfigError
from ssltransfer.config.config import Config, ModelEntry
from ssltransfer.config.load import check_keys, complete, read_config
from ssltransfer.config.one_table import only_table

__all__ = ["Config", "ConfigError", "ModelEntry", "check_keys", "complete", "only_table", "read_config"]
