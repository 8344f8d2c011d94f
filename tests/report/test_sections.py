"""What the sections compute and draw: flow, clusterings, thumbnails, filters, words."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from ssltransfer.artifacts.files import read_json, write_json
from ssltransfer.artifacts.index import read_index, write_index
from ssltransfer.artifacts.manifest import ModelManifest
from ssltransfer.artifacts.metrics import LineFigure, Metrics
from ssltransfer.config.entities import Pretext, Report
from ssltransfer.config.formats import CacheOptions
from ssltransfer.data.drawing import data_uri, side_by_side, with_boxes
from ssltransfer.report.clusterings import clusterings
from ssltransfer.report.dag import lay_out
from ssltransfer.report.evaluations import evaluation_details
from ssltransfer.report.load_results import ArtifactRecord, Results, load_results
from ssltransfer.report.plots import Plots
from ssltransfer.report.sections import datasets, layer_mixes, learning_curves, snapshot_curves
from ssltransfer.report.students import students
from ssltransfer.report.text import anchor, count, duration, number
from ssltransfer.report.thumbnails import filters, sample_images, strip, thumbnail, thumbnail_source
from ssltransfer.stages import cache
from tests.report.conftest import BACKBONE


def image(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_graph_places_boxes_right_of_their_inputs(filled) -> None:
    flow = lay_out(load_results(**filled.inputs))
    nodes = {(node.stage, node.name): node for node in flow.nodes}
    edges = [(nodes[key], node) for node in flow.nodes for key in node.parents]
    assert len(edges) == len(flow.edges) > 10
    assert all(parent.x < child.x for parent, child in edges)
    assert len({(node.x, node.y) for node in flow.nodes}) == len(flow.nodes)
    assert nodes["student", "cc-jig"].parents == [("label", "jig-k5/scenes_b")]


def test_graph_connects_teacher_and_students(chain) -> None:
    """A student may teach the next one, in a column of its own."""
    chain.dataset("d", classes=["a", "b"])
    chain.model("file", "pretext", {"task": {"name": "imported", "file": "w.pth"}}, trained=False)
    for name, teacher in (("first", "file"), ("second", "first")):
        method = {"name": "compress-1q", "teacher": teacher}
        chain.model(name, "student", {"method": method, "data": "d"}, trained=False)
    flow = lay_out(load_results(**chain.inputs))
    nodes = {node.name: node for node in flow.nodes}
    assert nodes["first"].parents == [("pretext", "file"), ("index", "d")]
    assert nodes["second"].parents == [("student", "first"), ("index", "d")]
    assert nodes["d"].x < nodes["file"].x < nodes["first"].x < nodes["second"].x
    assert [title for _, title in flow.titles] == ["datasets", "pretexts", "students", "students, again"]
    further = {"name": "feature-distillation", "teacher": "file", "further_teachers": [{"teacher": "first"}]}
    chain.model("both", "student", {"method": further, "data": "d"}, trained=False)
    (both,) = (node for node in lay_out(load_results(**chain.inputs)).nodes if node.name == "both")
    assert both.parents == [("pretext", "file"), ("student", "first"), ("index", "d")]


def test_graph_connects_a_teacher_of_a_file_with_its_dataset_and_student(chain) -> None:
    chain.dataset("d", classes=["a", "b"])
    chain.dataset("later")
    for data in ("d", "later"):
        path = chain.feature("clip", data, "none")
        write_json(path, read_json(path) | {"spec": {"file": {"path": "clip.npz", "digest": "ef56"}}})
    method = {"name": "regression", "teacher": "clip", "precompute_teacher": True}
    chain.model("s", "student", {"method": method, "data": "d", "val": "later"}, trained=False)
    found = load_results(**chain.inputs)
    assert found.kind("s") == "unranked"
    flow = lay_out(found)
    nodes = {node.name: node for node in flow.nodes}
    assert nodes["clip/d"].parents == [("index", "d")] and nodes["s"].parents == [
        ("features", "clip/d"),
        ("index", "d"),
    ]
    assert flow.omitted == 0 and nodes["clip/d"].anchor == anchor("features", "clip")


def test_graph_of_features_of_images_that_were_chosen_by_their_clusters(chain) -> None:
    """As in a second round of clustering: the features of the chosen images come after the clusters."""
    index = chain.dataset("d")
    chain.model("m", "pretext", {"task": "random"}, trained=False)
    chain.feature("f", "d", "m")
    chain.cluster("k", "f", "d")
    chain.label("k", "d")
    chain.dataset("few")
    write_index(chain.inputs["indexes"][-1], replace(index, spec={"curate": {"cluster": "k"}}))
    chain.feature("f", "few", "m")
    chain.cluster("again", "f", "few")
    nodes = {node.name: node for node in lay_out(load_results(**chain.inputs)).nodes}
    assert nodes["few"].parents == [("label", "k/d")] and nodes["again"].parents == [("features", "f/few")]
    assert nodes["k"].x < nodes["few"].x < nodes["f/few"].x < nodes["again"].x


def test_graph_places_teaching_student_further_right(filled, chain) -> None:
    chain.indexes = filled.indexes
    chain.inputs = {kind: list(paths) for kind, paths in filled.inputs.items()}
    chain.feature("second-fc7", "scenes_b", "cc-jig")
    chain.cluster("second-k5", "second-fc7", "scenes_b")
    flow = lay_out(load_results(**chain.inputs))
    nodes = {(node.stage, node.name): node for node in flow.nodes}
    assert nodes["student", "cc-jig"].x < nodes["features", "second-fc7/scenes_b"].x < nodes["cluster", "second-k5"].x
    assert "features, again" in [title for _, title in flow.titles]
    assert max(node.x for node in flow.nodes) == nodes["evaluate", "nn"].x


def test_clusters_purity_and_sizes_match_plain_count(filled) -> None:
    (found,) = clusterings(Report(montage_clusters=2, montage_images=3), load_results(**filled.inputs), Plots())
    own, other = found.datasets
    assert own.labels.dataset == "objects.v1+x" and other.labels.dataset == "scenes_b"
    for row in (own, other):
        true, labels = filled.indexes[row.labels.dataset].labels, row.labels.content.labels
        most = sum(max(int(((labels == k) & (true == c)).sum()) for c in range(5)) for k in range(5))
        assert row.purity == pytest.approx(100 * most / len(true))
        joint = [((labels == k) & (true == c)).mean() for k, c in product(range(5), range(5))]
        entropy = [-sum(p * np.log(p) for p in ps if p) for ps in (joint, _shares(labels), _shares(true))]
        mutual = entropy[1] + entropy[2] - entropy[0]
        assert row.nmi == pytest.approx(mutual / ((entropy[1] + entropy[2]) / 2), abs=1e-9)
    assert found.sizes.tolist() == [5, 5, 5, 5, 0]


def test_clusters_of_levels_above_are_unions(chain) -> None:
    index = chain.dataset("d", classes=["a", "b", "c"])
    chain.model("m", "pretext", {"task": "random"}, trained=False)
    chain.feature("f", "d", "m")
    chain.cluster("k", "f", "d", parents=[2, 0, 0, 2, 1])
    chain.label("k", "d")
    (found,) = clusterings(Report(), load_results(**chain.inputs), Plots())
    fine, coarse = found.datasets
    assert fine.sizes.tolist() == [5, 5, 5, 5, 0] and coarse.sizes.tolist() == [10, 0, 10]
    labels = np.array([2, 0, 0, 2])[np.arange(20) % 4]
    most = sum(np.bincount(index.labels[labels == cluster]).max() for cluster in (0, 2))
    assert coarse.purity == pytest.approx(100 * most / 20) and coarse.largest_class == fine.largest_class
    page = chain.report().read_text()
    assert "clusters of the levels above</dt><dd>3</dd>" in page and page.count('id="label-') == 1


def _shares(labels: np.ndarray) -> list[float]:
    return [float((labels == k).mean()) for k in range(5)]


def test_montage_shows_nearest_images(filled) -> None:
    (found,) = clusterings(Report(montage_clusters=9, montage_images=3), load_results(**filled.inputs), Plots())
    assert [cluster for cluster, _ in found.montage] == [0, 1, 2, 3]
    index = filled.indexes["objects.v1+x"]
    # Distances fall with the sample id, so the nearest members of cluster 1 are its last ones.
    assert found.montage[1][1][0].uri == strip([index.path(i) for i in (17, 13, 9)])


def test_montage_replaces_unreadable_images_by_gray(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "red.png")
    assert (thumbnail(tmp_path / "broken.jpg") == 128).all()
    tiles = image(strip([tmp_path / "red.png", tmp_path / "missing.png"], 32))
    assert tiles.shape == (32, 66, 3)
    assert np.abs(tiles[8:24, 8:24].mean((0, 1)) - [255, 0, 0]).max() < 8
    assert np.abs(tiles[8:24, 42:58].mean((0, 1)) - 128).max() < 8


def test_thumbnails_read_cached_images(objects_path: Path, tmp_path: Path) -> None:
    """Frames of videos have no image file."""
    cache.run(CacheOptions(format="raw", short_side=64), data=objects_path, output=tmp_path / "c.parquet", threads=1)
    index = read_index(tmp_path / "c.parquet")
    from_file = thumbnail(thumbnail_source(index, 3))
    assert thumbnail_source(index, 3) == index.path(3)
    elsewhere = replace(index, root=tmp_path / "gone")
    assert np.array_equal(thumbnail(thumbnail_source(elsewhere, 3)), from_file)


def test_thumbnails_sample_covers_classes(filled) -> None:
    index = filled.indexes["objects.v1+x"]
    taken = sample_images(index, 10)
    assert np.bincount(index.labels[taken]).tolist() == [2] * 5
    assert sample_images(index, 100) != list(range(20)) and sorted(sample_images(index, 100)) == list(range(20))


def test_filters_are_scaled_to_their_range(tmp_path: Path) -> None:
    kernels = torch.zeros(2, 3, 11, 11)
    kernels[0, 0] = torch.linspace(-3, 5, 121).view(11, 11)
    kernels[1, :, 0, 0] = 1e-3
    save_file({"conv1.weight": kernels, "conv2.weight": torch.ones(4, 2, 3, 3)}, tmp_path / "backbone.safetensors")
    shown = image(filters(tmp_path / "backbone.safetensors") or "")
    assert shown.shape == (22, 46, 3)
    assert shown[0, 0].tolist()[0] == 0 and shown[21, 21].tolist()[0] == 255
    assert shown[0, 24].tolist() == [255] * 3 and shown[10, 40].tolist() == [0] * 3


def test_filters_need_convolution_weights(tmp_path: Path) -> None:
    save_file({"words": torch.ones(4, 2)}, tmp_path / "words.safetensors")
    assert filters(tmp_path / "words.safetensors") is None
    assert filters(tmp_path / "missing.safetensors") is None


def test_skipped_files_are_counted_by_reason(chain) -> None:
    chain.dataset("d", n=2, **{"a.jpg": "truncated: 10 bytes", "b.jpg": "truncated: 11 bytes", "c": "not an image"})
    (found,) = datasets(load_results(**chain.inputs))
    assert found.reasons == [("truncated", 2), ("not an image", 1)]


@given(st.text(), st.text())
def test_anchors_are_unique(one: str, other: str) -> None:
    ids = anchor("student", one), anchor("student", other)
    assert (ids[0] == ids[1]) == (one == other)
    assert all(id.isascii() and not set(id) & set(" \"'<>&#%") for id in ids)


def test_layer_mixes_show_tasks_and_evaluations_of_a_model(chain) -> None:
    chain.dataset("d", classes=["a", "b"])
    mixes = {"rp": [0.6, -0.8, 0.0], "col": [1.0, 0.0, 0.0]}
    for name in ("mixed", "plain", "other"):
        task = {"name": "random"}
        path = chain.model(name, "pretext", {"task": task}, trained=False)
        if name == "mixed":
            write_json(path, json.loads(path.read_text()) | {"mixes": mixes})
    chain.measure("frozen", "mixed", {"accuracy": [50.0]}, details={"mix": [0.0, 0.0, 1.0]})
    chain.measure("frozen", "plain", {"accuracy": [50.0]}, details={"mix": [0.0, 1.0, 0.0]})
    (mixed, drawn), (plain, _) = layer_mixes(load_results(**chain.inputs), Plots())
    assert (mixed, plain) == ("mixed", "plain")
    shown = re.findall(r"<text[^>]*>([^<]+)</text>", drawn)
    assert [name for name in shown if name in ("rp", "col", "frozen")] == ["col", "rp", "frozen"]
    assert chain.report().read_text(encoding="utf-8").count("<h3>Mixes of units: ") == 2


def test_aligned_clusters_show_their_test_images(chain) -> None:
    chain.dataset("train", classes=["cat", "dog"])
    test = chain.dataset("test", classes=["cat", "dog"])
    clusters = [
        {"cluster": 0, "class": "dog", "purity": 0.75, "test": [test.paths[i] for i in (3, 7, 5)]},
        {"cluster": 1, "class": "cat", "purity": 0.5, "test": ["gone.png"]},
        {"cluster": 2, "class": "bird", "purity": 1.0},
    ]
    chain.measure("aligned", "m", {"accuracy": [50.0]}, details={"clusters": clusters})
    (evaluation,) = evaluation_details(load_results(**chain.inputs), Plots())
    cat, dog = evaluation.models[0].clusters
    assert (cat.cluster.label, dog.cluster.label) == ("cat", "dog")
    assert dog.uri == strip([test.path(i) for i in (3, 7, 5)], 48) and (image(cat.uri) == 128).all()
    page = chain.report().read_text(encoding="utf-8")
    assert dog.uri in page and "<td>75 %</td>" in page


def test_drawings_of_protocol_are_shown() -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, 15:] = (10, 200, 30)
    framed = with_boxes(pixels, np.array([[2, 3, 12, 17]]), [""], [(255, 0, 0)])
    assert (framed[3, 2:12] == (255, 0, 0)).all() and (framed[16, 2:12] == (255, 0, 0)).all()
    assert (framed[5, 14] == 0).all() and (pixels[:, :15] == 0).all()
    beside = side_by_side([pixels, framed[:10]], 40)
    assert beside.shape == (40, 60 + 4 + 120, 3) and (beside[:, 60:64] == 255).all()
    assert (image(data_uri(beside, "PNG")) == beside).all()
    svg = Plots().lines(LineFigure(title="loss", x="step", y="", series={"training": ([1, 2], [3.0, 1.0])}), "net")
    assert svg.startswith("<svg") and "loss of net" in svg


def test_chance_level_far_above_the_curve_does_not_flatten_it() -> None:
    rows = [{"epoch": float(i), "loss": 1.5 - 0.1 * i} for i in range(1, 9)]
    (far,), (near,) = (Plots().learning(rows, chance, "m") for chance in (9.0, 2.0))
    assert ">chance level 9 (above)<" in far and ">chance level<" in near
    assert ">1.0<" in far  # a tick of an axis that ends at the highest loss


def test_students_keep_a_part_of_their_teacher(chain) -> None:
    """(student - random) / (teacher - random), with the random network of the student's own backbone."""
    chain.dataset("d", classes=["a", "b"])
    chain.dataset("few", classes=["a", "b"])
    chain.model("t", "pretext", {"task": {"name": "rotation"}, "data": "d"}, trained=False)
    chain.model("s", "student", {"method": {"name": "regression", "teacher": "t"}, "data": "d"}, trained=False)
    chain.model("random", "pretext", {"task": {"name": "random"}}, trained=False)
    other = {"task": {"name": "random"}, "backbone": BACKBONE | {"width_mult": 0.2}}
    chain.model("random-other", "pretext", other, trained=False)
    for model, value in (("t", 60.0), ("s", 45.0), ("random", 10.0), ("random-other", 30.0)):
        chain.measure("e", model, {"accuracy": [value]}, chance=None)
    for model, value in (("t", 5.0), ("s", 45.0), ("random", 10.0)):
        chain.measure("worse", model, {"accuracy": [value]}, chance=None)
    for model, value in (("t", 31.0), ("s", 45.0), ("random", 30.0)):
        chain.measure("noise", model, {"accuracy": [value]})
    chain.measure("alone", "s", {"accuracy": [3.0]})
    (row,) = students(load_results(**chain.inputs))
    assert (row.student, row.teacher) == ("s", "t")
    assert row.kept == {"e": pytest.approx(0.7), "worse": None, "noise": None, "alone": None}
    assert row.sizes[0] == row.sizes[1]
    assert row.sizes[0].megabytes == pytest.approx(4e-6 * row.sizes[0].parameters, rel=0.2)
    assert "<td>70 %</td>" in chain.report().read_text(encoding="utf-8")


def test_curve_plot_of_flat_curve_has_short_tick_labels() -> None:
    """The labels are whole numbers, without an offset above the axis."""
    rows = [{"iteration": i, "objective": 521.7 + 0.1 / i, "moved": 0} for i in (1, 2, 3)]
    objective, *_ = Plots().clustering(rows, np.array([1, 2]), 1, "flat")
    assert ">521.76<" in objective and "+5.2" not in objective


def test_format_numbers_and_durations() -> None:
    assert [duration(s) for s in (None, 0.44, 9.99, 59.4, 61, 7265)] == [
        *("\u2013", "0.4 s", "10.0 s", "59 s"),
        *("1 min 01 s", "2 h 01 min"),
    ]
    assert [number(x) for x in (None, 1.25, -3.14, -0.01)] == ["\u2013", "1.2", "\u22123.1", "0.0"]
    assert [count(1, "image"), count(12345, "image")] == ["1 image", "12,345 images"]


def models(folder: Path) -> dict[str, ArtifactRecord[ModelManifest]]:
    """A pretext of two tasks, a snapshot of it, and another network."""
    rows = [
        '{"step": 1, "a.epoch": 0.1, "a.loss": 2.0, "loss": 2.0}',
        '{"step": 4, "a.loss": 1.0, "b.loss": 3.0, "loss": 2.0}',
    ]
    (folder / "curve.jsonl").write_text("\n".join(rows))
    trained = {"summary": {"step": 4, "loss": 2.0, "chance_loss": 2.5}, "chance_losses": {"a": 2.0, "b": 3.0}}
    snapshot, random = {"name": "snapshot", "source": "rp", "step": 2}, {"name": "random"}
    contents = {
        "rp": (folder, random, trained),
        "rp@2": (folder / "x", snapshot, {}),
        "other": (folder / "x", random, {}),
    }
    records = {}
    for name, (place, task, content) in contents.items():
        spec = Pretext.model_validate({"task": task, "backbone": "caffenet"})
        path = place / "manifest.json"
        manifest = ModelManifest.model_validate(
            {"path": path, "stage": "pretext", "spec": spec, "weights": "", "normalize": "imagenet", **content}
        )
        records[name] = ArtifactRecord("pretext", name, manifest, None)
    return records


def test_snapshots_plot_ends_at_last_step(tmp_path: Path):
    metrics = [
        ArtifactRecord(
            "evaluate",
            f"near/{model}",
            Metrics({"name": "knn"}, model, "near", "accuracy", "%", {"accuracy": [value]}, [0], {}),
            None,
        )
        for model, value in (("rp", 60.0), ("rp@2", 40.0), ("other", 10.0))
    ]
    drawn: list[dict[str, object]] = []

    class Kept(Plots):
        def lines(self, figure, model):
            drawn.append(figure.series)
            return super().lines(figure, model)

    found = snapshot_curves(Results({}, models(tmp_path), {}, {}, {}, metrics), Kept())
    assert len(found) == 1 and drawn == [{"rp": ([2, 4], [40.0, 60.0])}]
    assert snapshot_curves(Results({}, models(tmp_path), {}, {}, {}, metrics[2:]), Kept()) == []


def test_curves_of_multi_task_are_separate(tmp_path: Path):
    (found,) = learning_curves(Results({}, models(tmp_path), {}, {}, {}), Plots())
    assert len(found.plots) == 2
    assert "loss of a of rp" in found.plots[0] and "loss of b of rp" in found.plots[1]
