"""Read, expand, complete and check a configuration file."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ssltransfer.config.backbones import BACKBONES
from ssltransfer.config.base import ConfigError, explain
from ssltransfer.config.check import check
from ssltransfer.config.config import Config
from ssltransfer.config.curated import with_source_options
from ssltransfer.config.entities import ConfigFile
from ssltransfer.config.formats import FORMATS
from ssltransfer.config.implicit_entries import add_baselines, add_features, add_snapshots
from ssltransfer.config.methods import METHODS
from ssltransfer.config.protocols import PROTOCOLS
from ssltransfer.config.sweeps import expand
from ssltransfer.config.tasks import TASKS

SECTIONS = ("datasets", "pretexts", "features", "clusters", "students", "evaluations", "exports")

# Classes by name, for the suggestions for unknown keys.
_CLASSES: dict[str, type[BaseModel]] = {
    **{str(kind.model_fields["format"].default): kind for kind in FORMATS},
    **{str(kind.model_fields["name"].default): kind for kind in (*BACKBONES, *TASKS, *METHODS, *PROTOCOLS)},
    "ConfigFile": ConfigFile,
}


def read_config(path: str | Path) -> Config:
    """Read, expand, check and complete a configuration file.

    Raises:
        ConfigError: the problem, its location and the fix.
    """
    path = Path(path)
    try:
        content = _read_yaml(path)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return complete(content, str(path))


def check_keys(path: str | Path) -> None:
    """Refuse duplicate keys in a file that Snakemake reads too: it keeps the last one silently.

    Raises:
        ConfigError: a key occurs twice.
    """
    with suppress(yaml.YAMLError):  # JSON may be indented by tabs
        _read_yaml(Path(path))


def _read_yaml(path: Path) -> Any:
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, UniqueKeyLoader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save the configuration as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a configuration file.") from None


class UniqueKeyLoader(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys instead of keeping the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping.

        Raises:
            ConfigError: a key occurs twice.
        """
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        doubled = sorted({key for key in keys if keys.count(key) > 1 and key != "<<"})
        if doubled:
            raise ConfigError(f"{self.name}: line {node.start_mark.line + 1}: duplicate key {doubled[0]!r}.")
        return super().construct_mapping(node, deep)


def complete(content: Any, where: str = "the configuration") -> Config:
    """Check and complete configuration content, such as Snakemake's `config`."""
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected a mapping with the sections {', '.join(SECTIONS)}.")
    try:
        document = _parse(content)
        config = add_baselines(add_snapshots(document))
        config = add_features(config)
        check(config)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return config


def _parse(content: dict[str, Any]) -> ConfigFile:
    expanded = dict(content)
    for section in SECTIONS:
        entries = expanded.get(section)
        if isinstance(entries, dict):
            for name in entries:
                if not isinstance(name, str):
                    raise ConfigError(
                        f"{section}: the name {str(name)!r} is not text for YAML; write it in quotes, as on, off, "
                        "yes, no, numbers and dates."
                    )
            expanded[section] = expand(section, entries)
        elif entries is not None:
            raise ConfigError(f"{section}: expected a mapping of names to definitions.")
    if expanded.get("datasets"):
        expanded["datasets"] = with_source_options(expanded["datasets"], expanded.get("clusters") or {})
    try:
        return ConfigFile.model_validate(expanded)
    except ValidationError as error:
        raise ConfigError(explain(error, "", _CLASSES).lstrip(".")) from None
