from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.base import NameFile
from ssltransfer.config.protocols import LabelSubset
from ssltransfer.protocols.subsets import labeled_subsets, stratified


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.99), st.integers(0, 9))
def test_stratified_draws_fraction_of_each_class(classes: list[int], share: float, seed: int) -> None:
    labels = np.array(classes)
    chosen = stratified(labels, share, seed, keep=1)
    assert (np.diff(chosen) > 0).all()
    for label in np.unique(labels):
        there, taken = (labels == label).sum(), (labels[chosen] == label).sum()
        assert taken == min(max(1, round(share * there)), there - 1)


def test_label_file_matches_path_or_name(tmp_path: Path) -> None:
    paths = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/3.jpg"]
    labels = np.array([0, 0, 1, 1])

    def chosen(*lines: str) -> list[int]:
        (tmp_path / "list.txt").write_text("".join(f"{line}\n" for line in lines))
        options = LabelSubset(file=NameFile(path=str(tmp_path / "list.txt")))
        found = list(labeled_subsets(paths, labels, options, (0, 1)))
        assert len(found) == 2 and (found[0] == found[1]).all()
        return found[0].tolist()

    assert chosen("# SimCLR's lists hold file names", "3.jpg", "a/1.jpg 0", "") == [0, 3]
    paths[3] = "b/IMG 3.jpg"
    assert chosen("IMG 3.jpg", "\ta/1.jpg") == [0, 3] and chosen("IMG 3.jpg\t5", "a/2.jpg 1") == [1, 3]
    with pytest.raises(ArtifactError, match=r"1\.jpg names several images"):
        chosen("1.jpg")
    with pytest.raises(ArtifactError, match=r"c/9\.jpg is not in the training set"):
        chosen("c/9.jpg")


def test_labeled_subsets_depend_on_seed(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 5, 300)
    first = stratified(labels, 0.2, 0)
    assert (first == stratified(labels, 0.2, 0)).all()
    assert (first != stratified(labels, 0.2, 1)).any()
    assert len(first) == pytest.approx(60, abs=3)
