"""The JSON Schema of configuration files, for editors: completion, descriptions and errors while typing."""

from __future__ import annotations

from typing import Any

from ssltransfer.config.entities import ConfigFile

SWEEP = {"type": "object", "required": ["for"]}  # not checked: its strings stand for values of any type
ALONE = ("InputFile", "NameFile", "Export")  # may be the path or the model alone


def json_schema() -> dict[str, Any]:
    """The schema of a file before its sweeps are expanded. It accepts every valid file, and refuses most others."""
    schema = _relaxed(ConfigFile.model_json_schema())
    for name in ALONE:
        definition = schema["$defs"][name]
        schema["$defs"][name] = {"anyOf": [{"type": "string"}, definition], "description": definition["description"]}
    for section in schema["properties"].values():
        for pattern, entry in section.get("patternProperties", {}).items():
            # The name of a sweep has placeholders.
            section["patternProperties"] = {pattern: {"anyOf": [entry, SWEEP]}, r"\{": SWEEP}
            section["type"] = ["object", "null"]
            break
    # Curated datasets have the options of another one.
    entry = schema["properties"]["datasets"]["patternProperties"]
    curated = {"type": "object", "required": ["curate"], "additionalProperties": False}
    curated["properties"] = {"curate": {"$ref": "#/$defs/CurateOptions"}}
    next(iter(entry.values()))["anyOf"].append(curated)
    # Published weights know their backbone.
    schema["$defs"]["Pretext"]["required"].remove("backbone")
    schema["properties"] |= {"$schema": {"type": "string"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of ssltransfer",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _relaxed(node: Any) -> Any:
    """Without titles; the name of an option is enough where it has no options."""
    if isinstance(node, list):
        return [_relaxed(one) for one in node]
    if not isinstance(node, dict):
        return node
    found = {key: _relaxed(value) for key, value in node.items() if not (key == "title" and isinstance(value, str))}
    if "discriminator" in found:
        names = list(found.pop("discriminator")["mapping"])
        found["anyOf"] = [{"enum": names}, *found.pop("oneOf")]
    if found.get("type") == "object" and "const" in found.get("properties", {}).get("name", {}):
        found["required"] = sorted({*found.get("required", []), "name"})
    return found
