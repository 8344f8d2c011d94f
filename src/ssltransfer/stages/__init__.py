"""The stages: each module's `run` reads its inputs, calls the layers below, and writes the manifest last.

A stage is imported when it is first used (PEP 562), because each takes seconds: `stages.cluster.run`.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssltransfer.stages import cache as cache
    from ssltransfer.stages import cluster as cluster
    from ssltransfer.stages import curate as curate
    from ssltransfer.stages import evaluate as evaluate
    from ssltransfer.stages import features as features
    from ssltransfer.stages import index as index
    from ssltransfer.stages import label as label
    from ssltransfer.stages import motion as motion
    from ssltransfer.stages import pretext as pretext
    from ssltransfer.stages import report as report
    from ssltransfer.stages import student as student
else:

    def __getattr__(name: str) -> ModuleType:
        if name.startswith("_"):
            raise AttributeError(name)
        return import_module(f"{__name__}.{name}")
