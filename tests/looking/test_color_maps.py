"""Maps in colors, against plain arithmetic and with planted patterns; the page of `ssltransfer look MODEL`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.artifacts.index import Index
from ssltransfer.cli import main
from ssltransfer.config.entities import Pretext
from ssltransfer.looking.color_maps import colored_layers, principal_colors
from ssltransfer.looking.pages import look
from ssltransfer.models.backbone import LayerError
from ssltransfer.stages import pretext
from ssltransfer.training.devices import plan_devices
from tests.helpers.html_page import Page

RESNET = {"name": "resnet18", "width_mult": 0.125, "img_size": 64}


def model(results: Path, name: str, **spec: object) -> Path:
    manifest = results / "pretext" / name / "manifest.json"
    given = {"task": "random", "backbone": RESNET, **spec}
    data = results / "index" / "own.parquet" if "data" in given else None
    pretext.run(Pretext.model_validate(given), data=data, output=manifest, threads=1)
    return manifest


def test_colors_are_principal_components() -> None:
    rng = np.random.default_rng(0)
    maps = (rng.normal(size=(3, 6, 5, 4)) * np.array([9, 5, 2, 1, 0.5, 0.1])[:, None, None]).astype(np.float32)
    colors, explained = principal_colors(maps)
    assert colors.shape == (3, 5, 4, 3) and colors.dtype == np.uint8
    rows = maps.transpose(0, 2, 3, 1).reshape(-1, 6)
    fitted = PCA(3).fit(rows.astype(np.float64))
    assert explained == pytest.approx(100 * fitted.explained_variance_ratio_.sum())
    for component, color in zip(fitted.transform(rows).T, colors.reshape(-1, 3).T, strict=True):
        low, high = np.percentile(component, (1, 99))
        expected = 255 * np.clip((component - low) / (high - low), 0, 1)
        found = color.astype(float)
        assert min(np.abs(found - expected).max(), np.abs(255 - found - expected).max()) <= 0.51


def test_colors_do_not_depend_on_the_sign_of_a_solver() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 5, 4, 4)).astype(np.float32)
    colors, _ = principal_colors(maps)
    again, _ = principal_colors(np.ascontiguousarray(maps[:, ::-1]))  # other order of the channels
    assert np.abs(colors.astype(int) - again).max() <= 1


@pytest.mark.parametrize("channels", [1, 2])
def test_few_channels_and_constant_maps(channels: int) -> None:
    maps = np.zeros((2, channels, 3, 3), np.float32)
    assert not principal_colors(maps)[0].any() and principal_colors(maps)[1] == 0
    maps[1] = 1
    colors, explained = principal_colors(maps)
    assert set(colors[..., 0].ravel().tolist()) == {0, 255} and not colors[..., 1:].any() and explained == 100


def test_page_of_a_model(
    objects_path: Path, objects: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    (results / "index").mkdir(parents=True)
    (results / "index" / "own.parquet").write_bytes(objects_path.read_bytes())
    schedule = {"steps": 1, "batch_size": 2, "lr": 0.01}
    trained = model(results, "turned", task="rotation", data="own", schedule=schedule)
    assert main(["look", str(trained.parent)]) == 0
    file = results / "report" / "models" / "turned.html"
    assert str(file) in capsys.readouterr().out
    page = Page(file.read_text("utf-8"))
    layers = [name for name, shape in json.loads((trained.parent / "backbone.json").read_text())["layers"].items()
              if len(shape) == 3]  # fmt: skip
    assert page.open == [] and len(page.images) == 12 * (1 + len(layers))
    assert all(source.startswith("data:") for source in page.sources)
    assert look(trained, tmp_path / "again.html").read_bytes() == file.read_bytes()
    assert look(trained, tmp_path / "other.html", seed=1).read_bytes() != file.read_bytes()


def test_page_of_an_untrained_model_needs_images(objects: Index, tmp_path: Path) -> None:
    untrained = model(tmp_path / "results", "m")
    with pytest.raises(ArtifactError, match=r"m.manifest\.json: was not trained here.*name a folder \(--images\)"):
        look(untrained)
    page = Page(look(untrained, images=objects.root).read_text("utf-8"))
    assert len(page.images) > 12
    own = tmp_path / "embedded.parquet"
    assert main(["embed", str(untrained), str(objects.root), str(own)]) == 0
    with pytest.raises(ArtifactError, match="only a model is shown on other images"):
        look(own, images=objects.root)


def test_equal_features_have_equal_colors() -> None:
    maps = np.zeros((4, 8, 4, 6), np.float32)
    maps[..., :3] = np.linspace(0, 1, 8)[:, None, None]
    colors, explained = principal_colors(maps)
    left, right = (np.unique(half.reshape(-1, 3), axis=0) for half in (colors[:, :, :3], colors[:, :, 3:]))
    assert explained == pytest.approx(100) and len(left) == len(right) == 1 and (left != right).any()


def test_maps_of_one_location_are_left_out(objects: Index, tmp_path: Path) -> None:
    tiny = model(tmp_path / "results", "tiny", backbone={**RESNET, "img_size": 32})
    _, layers = colored_layers(tiny, objects, [0], plan_devices(1))
    assert [layer.name for layer in layers] == ["conv1", "block1", "block2", "block3"]
    assert [(layer.height, layer.width) for layer in layers][-1] == (2, 2)


def test_model_without_maps_is_refused(objects: Index, objects_path: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (results / "index").mkdir(parents=True)
    (results / "index" / "own.parquet").write_bytes(objects_path.read_bytes())
    task = {"name": "hog", "num_descriptors": 600, "max_iter": 5}
    backbone = {"name": "hog-words", "vocabulary_size": 4, "img_size": 64}
    words = model(results, "words", task=task, backbone=backbone, data="own")
    with pytest.raises(LayerError, match="no layer is a map of at least 2 x 2 locations"):
        look(words, images=objects.root)
