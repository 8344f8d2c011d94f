"""A typed, lazy registry: which class or function implements which options class."""

import importlib
import pkgutil
from collections.abc import Callable
from importlib.util import find_spec
from typing import Generic, TypeVar

Implementation = TypeVar("Implementation")
Registered = TypeVar("Registered")


class Registry(Generic[Implementation]):
    """Maps options classes to what implements them; an implementation registers itself:

        @PRETEXT_TASKS.register(Rotation)
        class RotationTask(PretextTask): ...

    No module of the package is imported before the first lookup. A lookup first imports the module that is called like
    the options' own (config/backbones/vggs.py, models/vggs.py), so that heavy imports stay where they are needed, and
    all modules of the package only if that is not enough.

    Args:
        packages: where the implementations are, such as "ssltransfer.tasks.pretext".
    """

    def __init__(self, *packages: str):
        self.packages = packages
        self._implementations: dict[type, Implementation] = {}

    def register(self, *options: type) -> Callable[[Registered], Registered]:
        """Decorator: what it decorates implements these options classes.

        Raises:
            ValueError: one of them is registered already.
        """

        def add(implementation: Registered) -> Registered:
            for one in options:
                if one in self._implementations:
                    raise ValueError(f"{one.__name__} is already implemented by {self._implementations[one]}")
                self._implementations[one] = implementation  # type: ignore[assignment]
            return implementation

        return add

    def __getitem__(self, options: type) -> Implementation:
        """What implements an options class.

        Raises:
            KeyError: nothing in the package does.
        """
        for package in self.packages:
            if options not in self._implementations:
                self._import(f"{package}.{options.__module__.rpartition('.')[2]}")
        for package in self.packages:
            if options not in self._implementations:
                for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
                    self._import(module.name)
        return self._implementations[options]

    @staticmethod
    def _import(name: str) -> None:
        if find_spec(name) is not None:
            importlib.import_module(name)
