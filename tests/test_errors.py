"""The sentences that errors of the operating system become."""

import os
import tarfile
import tempfile
from pathlib import Path

import pytest

from ssltransfer.data.archives import list_archive
from ssltransfer.errors import advice_on


def test_file_without_permission_is_named_in_one_sentence() -> None:
    """Root may read everything, so root becomes nobody."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        archive = Path(folder, "images.tar")
        tarfile.open(archive, "w").close()
        archive.chmod(0)
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError) as found:
                list_archive(archive)
        finally:
            os.seteuid(user)
    assert advice_on(found.value) == f"{archive}: Permission denied; give this user access to it, or name another path."
    assert advice_on(PermissionError("without a file")) is None
