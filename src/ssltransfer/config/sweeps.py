"""Sweeps: `name-k{k}: {for: {k: [500, 1000]}, ..., k: "{k}"}` becomes plain entries.

The values of several variables are combined, or listed together: `for: [{round: 1, before: 0}, {round: 2, before: 1}]`.
"""

import itertools
import re
from typing import Any

from ssltransfer.config.base import ConfigError

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expand(section: str, entries: dict[str, Any]) -> dict[str, Any]:
    """Expand the sweeps of a section, in the order of the product of their values.

    A value that is exactly "{k}" keeps the type of k; inside a longer string it is inserted as text.
    """
    plain: dict[str, Any] = {}
    for name, entry in entries.items():
        if not (isinstance(entry, dict) and "for" in entry):
            variants = [(str(name), entry)]
        else:
            variants = list(_variants(f"{section}.{name}", str(name), entry))
        for variant, content in variants:
            if variant in plain:
                raise ConfigError(
                    f"{section}.{variant}: duplicate name; the name of a sweep must contain its variables."
                )
            plain[variant] = content
    return plain


def _variants(where: str, name: str, entry: dict[str, Any]) -> Any:
    sweep = entry["for"]
    if isinstance(sweep, dict) and all(isinstance(values, list) and values for values in sweep.values()):
        combinations = [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]
    elif isinstance(sweep, list) and sweep and all(isinstance(one, dict) and one for one in sweep):
        combinations = sweep
    else:
        raise ConfigError(
            f"{where}.for: expected a list of values per variable, such as {{k: [500, 1000]}}, or a list of values of "
            "all variables, such as [{k: 500, lr: 0.1}, {k: 1000, lr: 0.2}]."
        )
    rest = {key: value for key, value in entry.items() if key != "for"}
    for variables in combinations:
        yield _fill(name, variables, where), _fill(rest, variables, where)


def _fill(value: Any, variables: dict[str, Any], where: str) -> Any:
    if isinstance(value, dict):
        return {key: _fill(inner, variables, where) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, variables, where) for inner in value]
    if not isinstance(value, str):
        return value
    for variable in _PLACEHOLDER.findall(value):
        if variable not in variables:
            known = ", ".join(map(str, variables))
            raise ConfigError(f"{where}: {{{variable}}} is not a variable of this sweep; its variables are {known}.")
    whole = _PLACEHOLDER.fullmatch(value)
    if whole:
        return variables[whole[1]]
    return _PLACEHOLDER.sub(lambda match: str(variables[match[1]]), value)
