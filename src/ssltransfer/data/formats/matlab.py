"""MATLAB files in which some sets keep their lists."""

from __future__ import annotations

import io
from typing import Any

from ssltransfer.data.formats import LayoutError


def read_mat(content: bytes, where: str) -> dict[str, Any]:
    """The variables of a MATLAB file, singleton dimensions dropped.

    Raises:
        LayoutError: it is not such a file, or damaged.
    """
    from scipy.io import loadmat

    try:
        variables: dict[str, Any] = loadmat(io.BytesIO(content), squeeze_me=True)
    except MemoryError:
        raise
    except Exception as error:  # scipy raises what the damaged bytes happen to make it raise
        raise LayoutError(f"{where}: cannot be read ({error}); remove it and fetch it again.") from None
    return variables
