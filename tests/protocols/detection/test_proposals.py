import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.protocols.detection import proposals as module
from ssltransfer.protocols.detection.proposals import find_proposals, grid
from ssltransfer.training.devices import Devices

CPU = Devices(torch.device("cpu"), 0)


def index_of(names: list[str], width: int = 40, height: int = 30) -> Index:
    sizes = np.array([[width, height]] * len(names), np.int32)
    return Index(Path(), names, np.full(len(names), -1, np.int32), [], sizes, [""] * len(names))


SETS = [("train", index_of(["JPEGImages/1.jpg", "JPEGImages/2.jpg"])), ("test", index_of(["JPEGImages/3.jpg"]))]


def find(how: object, folder: Path) -> tuple[list[list[np.ndarray]], str]:
    return find_proposals(SETS, how, folder=folder, devices=CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize(("width", "height"), [(500, 375), (333, 500), (96, 96), (1000, 50)])
def test_grid_spans_image(width: int, height: int) -> None:
    boxes = grid(width, height)
    assert boxes.dtype == np.float32 and 300 < len(boxes) < 4000 and len(np.unique(boxes, axis=0)) == len(boxes)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (width, height)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes[:, :2].min(0).tolist() == [0, 0] and boxes[:, 2:].max(0).tolist() == [width, height]


def test_grid_recalls_most_boxes() -> None:
    """Random boxes of a fifth to all of the image's side and aspects 1:2 to 2:1."""
    rng = np.random.default_rng(0)
    side, aspect = rng.uniform(0.2, 0.9, 500) * 400, np.exp(rng.uniform(-0.69, 0.69, 500))
    sides = np.stack([side / aspect**0.5, side * aspect**0.5], 1).clip(max=(500, 320))
    corners = rng.uniform(0, 1, (500, 2)) * ((500, 320) - sides)
    boxes = torch.from_numpy(np.concatenate([corners, corners + sides], 1).astype(np.float32))
    best = box_iou(boxes, torch.from_numpy(grid(500, 320))).amax(1)
    assert float((best >= 0.5).float().mean()) > 0.97


def test_proposal_files_are_matched_and_clipped(tmp_path: Path) -> None:
    one = {"2.png": np.array([[-5, 2, 9, 99], [50, 0, 60, 9]]), "1": np.zeros((0, 4)), "unknown": np.zeros((1, 4))}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(one))
    (tmp_path / "b.pkl").write_bytes(pickle.dumps([np.array([[1, 1, 3, 3]])]))
    found, source = find([str(tmp_path / "a.pkl"), str(tmp_path / "b.pkl")], tmp_path)
    assert [[boxes.tolist() for boxes in one] for one in found] == [[[], [[0, 2, 10, 30]]], [[[1, 1, 4, 4]]]]
    assert source.startswith("a.pkl ") and "b.pkl " in source


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ([{"1": [], "2": []}], r"test: no proposals for 1 of its 1 images, such as 3, in 0\.pkl"),
        ([{"1": [], "3": []}], "train: no proposals for 1 of its 2 images, such as 2"),
        ([{"1": [], "2": [], "3": []}, {"7": []}], r"1\.pkl: contains no proposals for images of train and test"),
        ([{"1": [], "2": [], "3": []}, {"2": []}], r"1\.pkl: 2 is in another file of proposals too"),
        ([[[], [], [], []]], "a list of 4 images without names; train and test have 2 and 1"),
    ],
)
def test_proposal_files_of_other_images_are_rejected(tmp_path: Path, contents: list[object], said: str) -> None:
    files = [tmp_path / f"{place}.pkl" for place in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(pickle.dumps(content))
    with pytest.raises(ArtifactError, match=said):
        find([str(file) for file in files], tmp_path)


def test_selective_search_without_opencv_names_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace())  # OpenCV without its contributed modules
    with pytest.raises(ArtifactError, match="install opencv-contrib-python-headless, name files of proposals, or set"):
        find("selective-search", tmp_path)


def test_selective_search_resumes(objects: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Things of the embedded world are proposed, and what was searched is not searched again."""
    monkeypatch.setattr(module, "CHUNK", 4)
    few = objects.subset(np.arange(6))
    (found,), _ = find_proposals([("few", few)], "selective-search", folder=tmp_path, devices=CPU)
    assert len(found) == 6 and all(len(boxes) > 10 for boxes in found)
    assert all((boxes >= 0).all() and (boxes <= 64).all() for boxes in found)
    (tmp_path / "proposals-0" / "4.npz").unlink()
    before = (tmp_path / "proposals-0" / "0.npz").stat().st_mtime_ns
    (again,), _ = find_proposals([("few", few)], "selective-search", folder=tmp_path, devices=CPU)
    assert (tmp_path / "proposals-0" / "0.npz").stat().st_mtime_ns == before
    assert all(np.array_equal(one, other) for one, other in zip(found, again, strict=True))


def test_selective_search_is_shared_by_the_processes(
    objects: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(Devices, "barrier", lambda self: None)  # they run one after the other here
    sets = [("few", objects.subset(np.arange(5)))]
    folder = tmp_path / "shared"
    with pytest.raises(FileNotFoundError):
        find_proposals(sets, "selective-search", folder=folder, devices=Devices(torch.device("cpu"), 0, 1, 2))
    assert [file.name for file in folder.rglob("*.npz")] == ["2.npz"]
    (found,), _ = find_proposals(sets, "selective-search", folder=folder, devices=Devices(torch.device("cpu"), 0, 0, 2))
    (alone,), _ = find_proposals(sets, "selective-search", folder=tmp_path / "alone", devices=CPU)
    assert all(np.array_equal(one, other) for one, other in zip(found, alone, strict=True))
