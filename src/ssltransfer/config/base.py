"""The base classes of all specs: no unknown keys, one canonical text, and errors that suggest the fix."""

import difflib
import hashlib
import importlib
import json
import os
import pkgutil
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
    with_config,
)
from typing_extensions import TypedDict

from ssltransfer.digests import hasher
from ssltransfer.errors import UserError


def _positive(values: list[float]) -> list[float]:
    if min(values) <= 0:
        raise ValueError("use positive standard deviations of values in [0, 1]")
    return values


Channels = Annotated[list[float], Field(min_length=3, max_length=3)]


@with_config(ConfigDict(extra="forbid"))
class MeanStd(TypedDict):
    """Mean and standard deviation of the red, green and blue values in [0, 1]."""

    mean: Channels
    std: Annotated[Channels, AfterValidator(_positive)]


Normalize = Literal["imagenet", "half", "none", "per-image", "per-channel", "caffe", "lab-lightness"] | MeanStd
"""Normalizations of images by name (`ssltransfer.models.normalize`), or by mean and standard deviation."""

SCHEDULE_EXAMPLE = "{epochs: 100, batch_size: 256, lr: 0.03}"
# Long by short side of an image whose size is unknown, for cost estimates.
USUAL_ASPECT = 4 / 3


class ConfigError(UserError, ValueError):
    """Invalid configuration. The message states the problem, its location and the fix."""


class Spec(BaseModel):
    """A typed part of the configuration; equal content gives equal canonical text."""

    version: ClassVar[int] = 1
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def canonical(self) -> str:
        """One line of JSON with sorted keys and without defaults, so that a new option invalidates nothing.

        It always includes names, formats and raised version numbers.
        """
        content = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the output of `canonical`.

        Raises:
            ConfigError: the text is not a valid spec.
        """
        try:
            content = json.loads(text, object_pairs_hook=_without_version)
            return cls.model_validate(content)
        except json.JSONDecodeError as error:
            raise ConfigError(f"--spec is not valid JSON: {error}.") from None
        except ValidationError as error:
            raise ConfigError(explain(error, "--spec", {cls.__name__: cls})) from None

    @model_serializer(mode="wrap")
    def _with_tag(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tags = {key: getattr(self, key) for key in ("name", "format") if key in type(self).model_fields}
        version = {"version": self.version} if self.version != 1 else {}
        return {**tags, **handler(self), **version}


def _without_version(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key != "version"}


def expand_variables(path: str) -> str:
    """The path with the values of environment variables.

    Raises:
        ValueError: a variable is not set.
    """
    expanded = os.path.expandvars(path)
    if unset := re.search(r"\$\w+|\$\{\w+\}", expanded):
        raise ValueError(f"the environment variable {unset[0]} is not set; set it or write the path in full")
    return expanded


class InputFile(Spec):
    """A file that a configuration names by its path; its content is part of the spec.

    So a replaced file changes the spec, and what depends on it runs again. A configuration can be read, for example to
    estimate its cost, without the file: only its readers need it.
    """

    path: str
    digest: str = Field("", description="Set automatically.")

    @model_validator(mode="before")
    @classmethod
    def _with_digest(cls, value: Any) -> Any:
        given = {"path": str(value)} if isinstance(value, str | Path) else value
        if not isinstance(given, dict) or not isinstance(given.get("path"), str):
            return given
        path = expand_variables(given["path"])
        return given | {"path": path, "digest": given.get("digest") or content_digest(path)}

    @property
    def location(self) -> Path:
        """The path with "~" expanded."""
        return Path(self.path).expanduser()

    def checked(self) -> Path:
        """The location.

        Raises:
            ConfigError: the content has changed since the configuration was read.
        """
        if self.digest and content_digest(self.path) not in ("", self.digest):
            raise ConfigError(f"{self.path}: has changed since the configuration was read; run snakemake again.")
        return self.location


class NameFile(InputFile):
    """A text file with one name per line; `listed_names` describes the lines."""

    def names(self, is_known: Callable[[str], bool] = lambda name: False) -> list[str]:
        """The name in each line.

        Raises:
            ConfigError: the file does not exist, has changed, or is not UTF-8.
        """
        try:
            return listed_names(self.checked().read_text(encoding="utf-8-sig"), is_known)
        except OSError:
            raise ConfigError(f"{self.path}: no such file; expected a text file with one name per line.") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{self.path}: not UTF-8 text; save this list as UTF-8.") from None


def listed_names(text: str, is_known: Callable[[str], bool] = lambda name: False) -> list[str]:
    """The names in a list with one name per line: `name`, `name<TAB>label` or `name label` with an integer label.

    Names may have blanks. So a line is first compared as a whole, then up to its tab, and only then without the
    integer at its end. Empty lines and lines that begin with # are ignored.

    Args:
        text: content of the file.
        is_known: whether a name exists.
    """
    names = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            spellings = [line, line.strip(), line.strip().partition("\t")[0]]
            spellings.append(re.sub(r"\s+-?\d+$", "", spellings[-1]))
            names.append(next(filter(is_known, spellings), spellings[-1]))
    return names


def content_digest(path: str) -> str:
    """Digest of a file's content; empty if it cannot be read."""
    file = Path(path).expanduser()
    try:
        state = file.stat()
        return _cached_digest(file, state.st_mtime_ns, state.st_size, state.st_ino)
    except OSError:
        return ""


@cache
def _cached_digest(file: Path, *state: int) -> str:
    # Weights of a gigabyte take a second; a configuration is validated several times.
    with file.open("rb") as content:
        return hashlib.file_digest(content, hasher).hexdigest()


def coerce_name(value: Any) -> Any:
    """Read a plain string as the options of that name with their defaults."""
    return {"name": value} if isinstance(value, str) else value


class Options(Spec):
    """The options of one named method.

    A subclass is what `ssltransfer list` shows: the first line of its docstring, and `reference`.
    `version` is raised deliberately when a change of the method's code changes its results: code changes alone do not
    invalidate results.
    """

    name: Any
    reference: ClassVar[str] = ""


def suggest(word: str, allowed: Iterable[str]) -> str:
    """'; did you mean X? Allowed: ...' for a word that is not among `allowed`."""
    names = sorted(map(str, allowed))
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    listed = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
    return f"{hint} Allowed: {listed or 'none'}."


def explain(error: ValidationError, where: str, models: dict[str, type[BaseModel]]) -> str:
    """The first problem of a pydantic error as one sentence.

    Args:
        error: what pydantic raised.
        where: location of the invalid part, e.g. 'students.cc'.
        models: name -> options class, for the allowed keys inside a union.
    """
    fault = error.errors()[0]
    steps = [str(step) for step in fault["loc"]]
    place = ".".join([where, *(step for step in steps if step not in models)])
    if fault["type"] == "extra_forbidden":
        owner = _owner(error, steps[:-1], models)
        key = steps[-1]
        keys = list(owner.model_fields) if owner else []
        return f"{place}: unknown key {key!r}{suggest(key, keys)}"
    if fault["type"] == "union_tag_invalid":
        tag = fault["ctx"]["tag"]
        allowed = [name.strip(" '") for name in fault["ctx"]["expected_tags"].split(",")]
        if "torchvision" in allowed and not difflib.get_close_matches(tag, allowed, n=1, cutoff=0.75):
            return (
                f"{place}: unknown name {tag!r}; networks of other libraries are `{{name: torchvision, model: {tag}}}` "
                f"and `{{name: timm, model: {tag}}}`. Own names: {', '.join(sorted(allowed))}."
            )
        return f"{place}: unknown name {tag!r}{suggest(tag, allowed)}"
    if fault["type"] == "union_tag_not_found":
        return f"{place}: expected a name, or a mapping with the key 'name'."
    if fault["type"] == "missing":
        example = f", such as {SCHEDULE_EXAMPLE}" if steps[-1] == "schedule" else ""
        return f"{place}: required key is missing{example}."
    given = fault.get("input")
    if fault["type"] in ("tuple_type", "list_type") and isinstance(given, str):
        return f"{place}: expected a list: write [{given}]."
    message = fault["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(given, dict | list | BaseModel) else f" (got {given!r})"
    return f"{place}: {message[0].lower()}{message[1:]}{shown}."


def _owner(error: ValidationError, steps: list[str], models: dict[str, type[BaseModel]]) -> type[BaseModel] | None:
    """The spec class that owns the key at the end of `steps`."""
    owner: type[BaseModel] | None = models.get(error.title)
    for step in steps:
        if step in models:
            owner = models[step]
        elif owner is not None and step in owner.model_fields:
            annotation = owner.model_fields[step].annotation
            owner = _spec_in(annotation) or owner
    return owner


def _spec_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _spec_in(part)
        if found:
            return found
    return None


Base = TypeVar("Base", bound=BaseModel)


def options_in(package: str, base: type[Base]) -> tuple[type[Base], ...]:
    """The options classes of a package, as `list` shows them.

    Args:
        package: all its modules are imported, so that a new module needs no registration.
        base: their base class; subclasses without a default `name` or `format` are bases themselves.

    Returns:
        By module, in alphabetical order, and within a module in the order of definition.
    """
    found: list[type[Base]] = []
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        content = vars(importlib.import_module(module.name)).values()
        found += [
            one
            for one in content
            if isinstance(one, type) and issubclass(one, base) and one.__module__ == module.name and _tag_of(one)
        ]
    return tuple(found)


def one_of(classes: tuple[type[BaseModel], ...]) -> Any:
    """The annotation of a field with one of these options, discriminated by their tag; a name alone is enough."""
    tag = "format" if "format" in classes[0].model_fields else "name"
    return Annotated[Union[classes], Field(discriminator=tag), BeforeValidator(coerce_name)]  # noqa: UP007


def _tag_of(options: type[BaseModel]) -> str | None:
    fields = (options.model_fields.get(tag) for tag in ("name", "format"))
    return next((one.default for one in fields if one is not None and isinstance(one.default, str)), None)
