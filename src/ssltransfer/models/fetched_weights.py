"""Weights from a URL, fetched once into torch.hub's cache."""

import hashlib
import socket
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch.hub

from ssltransfer.artifacts.files import ArtifactError, friendly_os_errors
from ssltransfer.data.formats.download import DOWNLOAD_TIMEOUT, download_lock
from ssltransfer.logs import logger


def cached_file(url: str, sha256: str) -> Path:
    """Where the file of a URL is cached: $TORCH_HOME/hub/checkpoints."""
    name = Path(unquote(urlsplit(url).path)).name or "weights.pth"
    return Path(torch.hub.get_dir(), "checkpoints", f"{sha256[:16]}-{name}")


def fetch_weights(url: str, sha256: str) -> Path:
    """The cached file of a URL, which the first job downloads while the others wait.

    Raises:
        ArtifactError: it cannot be downloaded, or the downloaded or cached file has another digest.
    """
    file = cached_file(url, sha256)
    with download_lock(file.parent, file.name):
        if not file.is_file():
            logger.info(f"{url}: downloading to {file}.")
            _download(url, file, sha256)
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != sha256:
        raise ArtifactError(f"{file}: its SHA-256 is {found}, not {sha256}; remove the file and run again.")
    return file


def _download(url: str, file: Path, sha256: str) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        with friendly_os_errors(file):
            torch.hub.download_url_to_file(url, str(file), sha256, progress=False)
    except RuntimeError as error:  # of torch, with both digests
        raise ArtifactError(f"{url}: {error}; correct `sha256` of the task if the file is the right one.") from None
    except (OSError, HTTPException) as error:  # URLError is an OSError
        raise ArtifactError(
            f"{url}: cannot be fetched ({error}); run this job where there is a network, or bring the file as {file}."
        ) from None
    finally:
        socket.setdefaulttimeout(before)
