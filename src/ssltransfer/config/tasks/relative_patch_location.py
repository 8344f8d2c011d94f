"""Relative patch location."""

from typing import Literal

from ssltransfer.config.tasks.jigsaw_kolesnikov import PatchOptions


class RelativePatchLocation(PatchOptions):
    """Relative patch location: which of the eight neighbors of the center patch is a patch?"""

    name: Literal["relative-patch-location"] = "relative-patch-location"
    reference = "Kolesnikov et al. 2019; protocols 1.3b"
