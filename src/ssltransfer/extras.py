"""Optional dependencies: the extras of pyproject.toml."""

import importlib
from typing import Any

from ssltransfer.errors import UserError


class MissingExtraError(UserError):
    """An optional dependency is not installed."""


def import_extra(module: str, extra: str, feature: str) -> Any:
    """The module of an optional dependency.

    Args:
        module: its name.
        extra: the extra of pyproject.toml that installs it.
        feature: what needs it, the subject of the error message.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtraError(
            f"{feature} needs {module.partition('.')[0]}, which is not installed; "
            f"run: pip install 'ssltransfer[{extra}]'."
        ) from None
