"""Relative patch location."""

from typing import ClassVar, Literal

from ssltransfer.config.tasks.jigsaw_kolesnikov import PatchOptions


class RelativePatchLocation(PatchOptions):
    """Relative patch location: which of the eight neighbors of the center patch is a patch?"""

    name: Literal["relative-patch-location"] = "relative-patch-location"
    reference: ClassVar[str] = "Kolesnikov et al. 2019; protocols 1.3b"
