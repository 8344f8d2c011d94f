"""Reading of MATLAB files."""

from __future__ import annotations

import io
from typing import Any

from ssltransfer.data.formats import LayoutError


def read_mat(content: bytes, where: str) -> dict[str, Any]:
    """Read the variables of a MATLAB file, without singleton dimensions.

    Raises:
        LayoutError: it is not a MATLAB file, or damaged.
    """
    from scipy.io import loadmat

    try:
        variables: dict[str, Any] = loadmat(io.BytesIO(content), squeeze_me=True)
    except MemoryError:
        raise
    except Exception as error:  # scipy raises arbitrary exceptions on damaged bytes
        raise LayoutError(f"{where}: cannot be read ({error}); remove it and download it again.") from None
    return variables
