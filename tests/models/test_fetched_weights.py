"""Weights from a URL: fetched once, verified, and one sentence without a network."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from ssltransfer.artifacts.files import ArtifactError, read_json
from ssltransfer.config.backbones import ResNet18
from ssltransfer.config.entities import Pretext
from ssltransfer.models.build import build_backbone
from ssltransfer.models.export import export
from ssltransfer.models.fetched_weights import cached_file, fetch_weights
from ssltransfer.models.weights import read_model
from ssltransfer.stages import pretext
from ssltransfer.tasks.pretext.imported import check_weights

requests: list[str] = []


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        requests.append(str(args[0]))


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a server of the folder `tmp_path/served`; the cache is in `tmp_path/torch`."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    requests.clear()
    (tmp_path / "served").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_fetch_weights_downloads_once(url: str, tmp_path: Path) -> None:
    (tmp_path / "served" / "a b.pth").write_bytes(b"weights")
    found: list[Path] = []
    jobs = [
        threading.Thread(target=lambda: found.append(fetch_weights(f"{url}/a%20b.pth?v=1", sha256(b"weights"))))
        for _ in range(3)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(set(found)) == 1 and found[0].read_bytes() == b"weights"
    assert found[0].name.endswith("-a b.pth") and tmp_path / "torch" in found[0].parents
    assert requests == ["GET /a%20b.pth?v=1 HTTP/1.1"]


def test_fetch_weights_refuses_another_digest(url: str, tmp_path: Path) -> None:
    (tmp_path / "served" / "w.pth").write_bytes(b"other")
    wanted = sha256(b"weights")
    with pytest.raises(ArtifactError, match=f"{wanted}.*correct `sha256`"):
        fetch_weights(f"{url}/w.pth", wanted)
    cached = cached_file(f"{url}/w.pth", wanted)
    assert [one.name for one in cached.parent.iterdir() if one.suffix != ".lock"] == []
    cached.write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="remove the file and run again"):
        fetch_weights(f"{url}/w.pth", wanted)


def test_fetch_weights_without_network_names_the_file_to_bring(url: str, tmp_path: Path) -> None:
    for missing in (f"{url}/no.pth", "http://127.0.0.1:9/other.pth"):
        cached = cached_file(missing, sha256(b"weights"))
        with pytest.raises(ArtifactError, match="cannot be fetched") as error:
            fetch_weights(missing, sha256(b"weights"))
        assert str(error.value).endswith(f"bring the file as {cached}.")
        cached.write_bytes(b"weights")
        assert fetch_weights(missing, sha256(b"weights")) == cached


def test_imported_weights_of_url(url: str, tmp_path: Path) -> None:
    """The check before the jobs fetches nothing; the card names the URL."""
    network = build_backbone(ResNet18(width_mult=0.125, img_size=32), include_top=True, seed=1)
    torch.save(network.state_dict(), tmp_path / "served" / "w.pth")
    digest = sha256((tmp_path / "served" / "w.pth").read_bytes())
    content = {
        "task": {"name": "imported", "url": f"{url}/w.pth", "sha256": digest, "license": "MIT"},
        "backbone": {"name": "resnet18", "width_mult": 0.125, "img_size": 32},
    }
    spec = Pretext.model_validate(content)
    check_weights(spec)
    assert requests == []
    manifest = tmp_path / "t" / "manifest.json"
    pretext.run(spec, output=manifest, threads=1)
    read = read_model(manifest).backbone.state_dict()
    assert all(torch.equal(read[name], value) for name, value in network.state_dict().items())
    assert read_json(manifest)["source"] == f"{url}/w.pth"
    check_weights(spec)
    export(manifest, tmp_path / "out.pth")
    assert f"Origin: `{url}/w.pth`" in (tmp_path / "out.pth.md").read_text()


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({}, "set either `file` or `url`"),
        ({"url": "https://a/w.pth", "file": "w.pth"}, "set either `file` or `url`"),
        ({"url": "https://a/w.pth"}, "set `sha256` with `url`"),
        ({"url": "https://a/w.pt2", "sha256": "0" * 64}, "bring the file and set `file`"),
        ({"url": "a/w.pth", "sha256": "0" * 64}, "pattern"),
    ],
)
def test_imported_refuses_incomplete_sources(task: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pretext.model_validate({"task": {"name": "imported", **task}, "backbone": "resnet18"})
