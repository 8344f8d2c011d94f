"""Options of a stage command, `--set KEY=VALUE`, as or over a spec."""

import json
from collections.abc import Sequence
from typing import Any

import yaml

from ssltransfer.config.base import ConfigError


def with_options(spec: str | None, options: Sequence[str]) -> str | None:
    """A spec as JSON with options such as `k=100`, `backbone=resnet18` or `schedule.lr=0.1`, whose values are YAML.

    Dots lead into mappings. Where a name stands for a mapping, it becomes the mapping's `name`: `task=rotation` and
    `task.hidden_dim=64` go together. A later option replaces an earlier one.

    Raises:
        ConfigError: no KEY=VALUE, a value that is not YAML, or a key inside something that is not a mapping.
    """
    if not options:
        return spec
    try:
        content = json.loads(spec or "{}")
    except json.JSONDecodeError as error:
        raise ConfigError(f"--spec is not valid JSON: {error}.") from None
    for option in options:
        key, equals, text = option.partition("=")
        if not equals or not all(key.split(".")):
            raise ConfigError(f"--set {option}: write KEY=VALUE, such as --set k=100 or --set schedule.lr=0.1.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set {option}: the value is not YAML; put it in quotes.") from None
        *parents, last = key.split(".")
        place: Any = content
        for parent in parents:
            inner = place.setdefault(parent, {})
            place[parent] = {"name": inner} if isinstance(inner, str) else inner
            place = place[parent]
            if not isinstance(place, dict):
                raise ConfigError(f"--set {option}: {parent} is {json.dumps(place)} and has no options.")
        place[last] = value
    return json.dumps(content)
