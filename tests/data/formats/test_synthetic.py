"""The embedded world is read like any published set, each split by itself."""

from pathlib import Path

import pytest

from ssltransfer.config.formats import Synthetic
from ssltransfer.data.formats import find


@pytest.mark.parametrize(
    ("kind", "label_type"),
    [
        ("objects", "single"),
        ("scenes", "single"),
        ("voc", "multi"),
        ("rgbd", "none"),
        ("clips", "none"),
        ("retrieval", "single"),
    ],
)
def test_synthetic_subsets_have_declared_content(tmp_path: Path, kind: str, label_type: str) -> None:
    n = 48 if kind == "retrieval" else 2 if kind == "clips" else 14
    splits = ("trainval", "test") if kind == "voc" else ("train", "test")
    paths: list[set[Path]] = []
    for split in splits:
        spec = Synthetic(root=str(tmp_path), subset=kind, split=split, num_images=n, size=32)
        found = find(spec)
        assert len(found.paths) == spec.estimated_num_images
        assert found.notes == []
        assert spec.label_type == label_type
        assert (found.labels is not None, found.multi_label is not None) == (
            label_type == "single",
            label_type == "multi",
        )
        paths.append({found.root / path for path in found.paths})
        assert all(path.is_file() for path in paths[-1])
    assert not paths[0] & paths[1]


def test_synthetic_reports_wrong_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no split 'mine'; use trainval or test"):
        Synthetic(root=str(tmp_path), subset="voc", split="mine", num_images=2, size=32)
