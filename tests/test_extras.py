"""Optional dependencies that are not installed: one sentence that names the extra, for every extra."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ssltransfer.config.backbones import Timm
from ssltransfer.config.formats import FastDepth
from ssltransfer.data.formats import find
from ssltransfer.data.videos import opencv
from ssltransfer.extras import MissingExtraError, import_extra
from ssltransfer.models.build import build_backbone
from ssltransfer.protocols.detection.proposals import find_proposals
from ssltransfer.training.devices import Devices

ROOT = Path(__file__).parents[1]


def read_hdf5(folder: Path) -> None:
    (folder / "val").mkdir()
    (folder / "val" / "1.h5").write_bytes(b"")
    find(FastDepth(root=str(folder), split="val"))


def search_proposals(folder: Path) -> None:
    find_proposals([], "selective-search", folder=folder, devices=Devices(torch.device("cpu"), 0))


def read_video(folder: Path) -> None:
    opencv.cache_clear()
    opencv()


def build_timm(folder: Path) -> None:
    build_backbone(Timm(model="resnet18"), include_top=True)


@pytest.mark.parametrize(
    ("module", "extra", "use"),
    [
        ("h5py", "hdf5", read_hdf5),
        ("cv2", "opencv", search_proposals),
        ("cv2", "opencv", read_video),
        ("timm", "timm", build_timm),
    ],
)
def test_missing_extra_is_named(
    module: str, extra: str, use: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as error:
        use(tmp_path)
    assert str(error.value).endswith(
        f"needs {module}, which is not installed; run: pip install 'ssltransfer[{extra}]'."
    )
    assert "\n" not in str(error.value)


def test_import_extra_returns_the_module(monkeypatch: pytest.MonkeyPatch):
    module = SimpleNamespace(array=np.array)
    monkeypatch.setitem(sys.modules, "h5py", module)
    assert import_extra("h5py", "hdf5", "this test") is module
