import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.protocols.detection.proposal_files import read_proposals, stem_of


def cells(*parts: object) -> np.ndarray:
    out = np.empty((1, len(parts)), object)
    for place, part in enumerate(parts):
        out[0, place] = part
    return out


def as_mat(path: Path, boxes: np.ndarray, names: np.ndarray) -> Path:
    savemat(path, {"boxes": boxes, "images": names})
    return path


def test_read_proposals_mat(tmp_path: Path) -> None:
    """Rows y1, x1, y2, x2 from 1, both corners inside; a image with one box, and one with none."""
    boxes = cells(np.array([[1.0, 3, 10, 20], [5, 5, 5, 5]]), np.array([[2.0, 1, 4, 3]]), np.zeros((0, 4)))
    found = read_proposals(as_mat(tmp_path / "a.mat", boxes, cells("000005", "000007", "2008_000009").T))
    assert isinstance(found, dict)
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "000005": [[2, 0, 20, 10], [4, 4, 5, 5]],
        "000007": [[0, 1, 3, 4]],
        "2008_000009": [],
    }
    assert all(rows.dtype == np.float32 for rows in found.values())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_read_proposals_pickled_list(tmp_path: Path, protocol: int) -> None:
    """Rows x1, y1, x2, y2 from 0, both corners inside; a score beside them is left."""
    rows = [np.array([[2, 0, 19, 9, 0.7]], np.float32), np.zeros((0, 5), np.float32)]
    (tmp_path / "l.pkl").write_bytes(pickle.dumps(rows, protocol))
    found = read_proposals(tmp_path / "l.pkl")
    assert isinstance(found, list)
    assert [one.tolist() for one in found] == [[[2, 0, 20, 10]], []]


def test_read_proposals_python2_pickle(tmp_path: Path) -> None:
    """Protocol 2 of numpy 1 under Python 2: numpy.core, and the array's bytes as a byte string."""
    array = np.array([[2, 0, 19, 9]], np.uint16)
    raw = array.tobytes()
    text = (
        b"\x80\x02]q\x00cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87R"
        b"(K\x01K\x01K\x04\x86cnumpy\ndtype\nU\x02u2K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(raw)]) + raw + b"tba."
    )
    (tmp_path / "old.pkl").write_bytes(text)
    found = read_proposals(tmp_path / "old.pkl")
    assert isinstance(found, list) and found[0].tolist() == [[2, 0, 20, 10]]


@pytest.mark.parametrize("form", ["by name", "boxes and images"])
def test_read_proposals_dictionaries(tmp_path: Path, form: str) -> None:
    rows = {"a/000001.jpg": np.array([[0, 0, 9, 9]]), "b": [[1, 1, 2, 2], [3, 3, 4, 4]]}
    content = rows if form == "by name" else {"images": list(rows), "boxes": list(rows.values())}
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(content))
    found = read_proposals(tmp_path / "d.pkl")
    assert isinstance(found, dict)
    assert list(found) == ["000001", "b"] and found["b"].tolist() == [[1, 1, 3, 3], [3, 3, 5, 5]]


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("open('pwned', 'w')",)


class Encoded:
    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        import codecs

        return codecs.encode, ("x", "rot13")


@pytest.mark.parametrize("bad", [Malicious(), [np.zeros((1, 4)), Malicious()], np.array([Malicious()], object)])
def test_read_proposals_rejects_code(tmp_path: Path, bad: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(bad))
    with pytest.raises(ArtifactError, match=r"m\.pkl: not a readable file of proposals \(it names builtins\.eval"):
        read_proposals(tmp_path / "m.pkl")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"nothing", "not a readable file"),
        (pickle.dumps(Encoded()), "it holds bytes as rot13"),
        (pickle.dumps(3), "a list or a dictionary of arrays is wanted, not int"),
        (pickle.dumps([np.zeros((2, 3))]), r"boxes of shape \(2, 3\); finite rows of four corners"),
        (pickle.dumps([np.full((1, 4), np.nan)]), "finite rows"),
        (pickle.dumps({"boxes": [np.zeros((1, 4))]}), "boxes without names; give these as 'images'"),
        (pickle.dumps({"boxes": [], "images": ["a"]}), "1 names of images, but boxes of 0"),
        (pickle.dumps({"a/1.jpg": [], "b/1.png": []}), "1 stands in it more than once"),
    ],
)
def test_read_proposals_rejects_other_pickles(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "p.pkl").write_bytes(content)
    with pytest.raises(ArtifactError, match=said):
        read_proposals(tmp_path / "p.pkl")


def test_read_proposals_rejects_other_files(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"gone\.mat: proposals cannot be read \(No such file"):
        read_proposals(tmp_path / "gone.mat")
    (tmp_path / "a.txt").write_text("1 2 3 4")
    with pytest.raises(ArtifactError, match=r"read from \.mat and \.pkl files"):
        read_proposals(tmp_path / "a.txt")
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 and then nothing")
    with pytest.raises(ArtifactError, match=r"a\.mat: not a readable file of proposals"):
        read_proposals(tmp_path / "a.mat")
    with pytest.raises(ArtifactError, match="1 names of images, but boxes of 2"):
        read_proposals(as_mat(tmp_path / "b.mat", cells(np.zeros((1, 4)), np.zeros((1, 4))), cells("a")))


def test_stem_of_names() -> None:
    assert [stem_of(name) for name in ("JPEGImages/000005.jpg", "000005", "img.v2", "a/img.v2.PNG")] == [
        "000005",
        "000005",
        "img.v2",
        "img.v2",
    ]
