"""The configuration: what is refused and in which words, what is completed by itself, what a change changes."""

from __future__ import annotations

import copy
import json
import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import Field, ValidationError

from ssltransfer.config import ConfigError, complete, read_config
from ssltransfer.config.backbones import BACKBONES, BackboneOptions, Exported, ResNet18
from ssltransfer.config.backbones.libraries import Custom, LibraryModel
from ssltransfer.config.base import InputFile
from ssltransfer.config.entities import ConfigFile, EvaluationSpec, Pretext, Student
from ssltransfer.config.formats import Video
from ssltransfer.config.outputs import export_paths
from ssltransfer.config.tasks import Imported

REPOSITORY = Path(__file__).parents[2]

BASE = yaml.safe_load("""
datasets:
  a-train: {format: imagefolder, root: a, split: train}
  a-val: {format: imagefolder, root: a, split: val}
  b: {format: folder, root: b}
  voc-train: {format: voc, root: v, split: trainval}
  voc-test: {format: voc, root: v, split: test}
pretexts:
  jig: {task: jigsaw++, backbone: caffenet, data: b, schedule: {steps: 10, batch_size: 8}}
features:
  jig-conv4: {model: jig, layer: conv4, pool: {max: 5}}
clusters:
  jig-k: {features: jig-conv4, data: b, k: 20}
students:
  cc: {method: {name: cluster-classification, cluster: jig-k}, data: a-train, backbone: caffenet, schedule: {epochs: 2}}
evaluations:
  nn: {protocol: {name: knn, layer: conv4, pool: {max: 5}}, models: [jig, cc], baselines: [random, supervised],
       train: a-train, test: a-val}
""")


def changed(path: str, value: Any) -> dict[str, Any]:
    content: dict[str, Any] = copy.deepcopy(BASE)
    *steps, last = path.split("/")
    part = content
    for step in steps:
        part = part[step]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("dataset", {}, "unknown key 'dataset'; did you mean 'datasets'?"),
        ("students/cc/method/clustr", "x", "students.cc.method.clustr: unknown key 'clustr'; did you mean 'cluster'?"),
        ("students/cc/method/cluster", "jig-k2", "no cluster is called 'jig-k2'; did you mean 'jig-k'?"),
        ("students/cc/method", "supervisd", "unknown name 'supervisd'; did you mean 'supervised'?"),
        (
            "students/cc/backbone",
            "efficientnet_b0",
            "are `{name: torchvision, model: efficientnet_b0}` and `{name: timm,",
        ),
        ("students/cc/backbone", "resnet81", "unknown name 'resnet81'; did you mean 'resnet18'?"),
        ("students/cc/schedule", None, "students.cc.schedule: required key is missing, such as {epochs: 100, batch_"),
        ("students/cc/backbone", {"name": "caffenet", "width": 2}, "did you mean 'width_mult'?"),
        ("students/cc/schedule", {"epochs": 1, "steps": 2}, "exactly one of epochs and steps"),
        ("pretexts/jig/schedule", None, "task jigsaw++ is trained: set `schedule`"),
        (
            "pretexts/jig/schedule/batch_size",
            7,
            "images in groups of 2; set batch_size and micro_batch_size to multiples of 2",
        ),
        (
            "pretexts/exemplar",
            {"task": "exemplar", "backbone": "resnet18", "data": "b", "schedule": {"steps": 9, "batch_size": 1}},
            "compares the images of a batch with each other; set batch_size and micro_batch_size to at least 2",
        ),
        (
            "pretexts/jig",
            {
                "task": "exemplar-patches",
                "backbone": "caffenet",
                "data": "b",
                "schedule": {"steps": 1, "batch_size": 7},
            },
            "exemplar-patches uses images in groups of 2",
        ),
        ("pretexts/jig/task", {"name": "jigsaw++", "tiles": {"crop": 84, "tile": 30}}, "tile 30 is larger than a cell"),
        ("pretexts/jig/data", "c", "pretexts.jig.data: no dataset is called 'c'"),
        ("pretexts/jig/val", "b", "have the same images"),
        ("features/jig-conv4/layer", "conv6", "has no layer 'conv6'"),
        ("features/jig-conv4/layer", "fc7", "(caffenet) has no layer 'fc7'"),
        ("features/jig-conv4/model", None, "features.jig-conv4: set `model` and `layer`, or `file`"),
        ("features/jig-conv4/file", "v.npz", "a file has features already; remove `model`"),
        ("features/jig", {"file": "v.npz"}, "features.jig: a model has the same name"),
        ("clusters/jig-k/k", "many", "valid integer"),
        ("clusters/jig-k/k", 1, "greater than or equal to 2"),
        ("clusters/jig-k/k", None, "clusters.jig-k.k: required key is missing"),
        ("evaluations/nn/test", "a-train", "train and test have the same images"),
        ("evaluations/nn/train", "b", "which dataset 'b' does not have"),
        ("evaluations/nn/models", ["cd"], "no model is called 'cd'; did you mean 'cc'?"),
        ("datasets/a b", {"format": "folder", "root": "x"}, "datasets.a b"),
        ("datasets/x;y", {"format": "folder", "root": "x"}, "datasets.x;y"),
        ("datasets/b/format", "foldr", "unknown name 'foldr'; did you mean 'folder'?"),
        ("pretexts/cc", {"task": "random", "backbone": "caffenet"}, "the name of both a pretext and a student"),
        ("report", {"tables": [{"title": "t", "columns": ["nm"]}]}, "no evaluation is called 'nm'"),
        (
            "report",
            {"figures": [{"title": "t", "columns": ["nn"], "layers": {"a": "jgi"}}]},
            "report.figures: 't': no model",
        ),
        (
            "report",
            {"figures": [{"title": "t", "columns": ["nn"], "lines": {"a": {"1": "*"}}, "against": "nm:accuracy"}]},
            "report.figures: 't': columns: no evaluation is called 'nm'; did you mean 'nn'?",
        ),
        ("report", {"tables": [{"title": "t", "columns": ["nn"], "rows": ["jgi"]}]}, "'jgi'; did you mean 'jig'?"),
        (
            "report",
            {"tables": [{"title": "t", "columns": ["nn"], "aggregate": {"mine": "cc-s*"}}]},
            "report.tables: 't': no model in its columns matches 'cc-s*'",
        ),
        (
            "report",
            {"tables": [{"title": "t", "columns": ["nn"], "aggregate": {"jig": "cc"}}]},
            "aggregate.jig is the name of a model; rename the row.",
        ),
    ],
)
def test_load_reports_invalid_entries(path: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        complete(changed(path, value), "mine.yaml")
    text = str(error.value)
    assert said in text and text.startswith("mine.yaml: ") and "\n" not in text


def test_load_refuses_more_clusters_than_images() -> None:
    content = changed("datasets/b", {"format": "synthetic", "subset": "objects", "split": "train", "num_images": 19})
    with pytest.raises(ConfigError, match="cannot form 20 clusters from 19 images"):
        complete(content)


def test_load_refuses_circular_students() -> None:
    with pytest.raises(ConfigError, match="circular dependency: cc <- cc"):
        complete(changed("features/jig-conv4/model", "cc"))


def test_load_refuses_initial_weights_of_another_network() -> None:
    wide = {**BASE["students"]["cc"], "backbone": {"name": "caffenet", "width_mult": 2}, "init": "jig"}
    said = "students.wide.init: the backbone of jig has `width_mult: 1.0`, not `width_mult: 2.0`; give both"
    with pytest.raises(ConfigError, match=said):
        complete(changed("students/wide", wide))
    with pytest.raises(ConfigError, match=r"students.cc.init: the backbone of jig has `caffenet`, not `alexnet`"):
        complete(changed("students/cc", {**BASE["students"]["cc"], "backbone": "alexnet", "init": "jig"}))
    with pytest.raises(ConfigError, match=r"students.cc.init: no model is called 'jg'; did you mean 'jig'\?"):
        complete(changed("students/cc/init", "jg"))


def test_load_refuses_circular_initial_weights() -> None:
    """cc learns clusters of jig, which would start from cc."""
    with pytest.raises(ConfigError, match=r"circular dependency: (cc <- jig <- cc|jig <- cc <- jig)"):
        complete(changed("pretexts/jig/init", "cc"))
    assert complete(changed("students/cc/init", "jig")).sources_of("cc") == ["jig", "jig"]


@pytest.mark.parametrize(
    ("val", "k", "said"),
    [
        ("voc-test", 5, "students.s.val_knn: it needs one class label per image, which dataset 'voc-test' does not"),
        ("b", 5, "which dataset 'b' does not have; name another `val`, or remove it."),
        ("few", 20, "students.s.val_knn: 20 is too large for the 20 images of few; use at most 19."),
    ],
)
def test_load_refuses_val_knn_without_enough_class_labels(val: str, k: int, said: str) -> None:
    content = changed("datasets/few", {"format": "imagefolder", "root": "a", "split": "val", "limit": 20})
    content["students"]["s"] = {**BASE["students"]["cc"], "data": "a-train", "val": val, "val_knn": k}
    with pytest.raises(ConfigError, match=re.escape(said)):
        complete(content)
    content["students"]["s"] |= {"val": "a-val"}
    assert complete(content).students["s"].val_knn == k


def test_curated_dataset_takes_the_options_of_its_source() -> None:
    content = changed("datasets/few", {"curate": {"cluster": "jig-k", "num_images": 30}})
    content["students"]["small"] = {**BASE["students"]["cc"], "data": "few"}
    config = complete(content)
    few, b = config.datasets["few"], config.datasets["b"]
    assert few.canonical() == b.canonical() and few.estimated_num_images == 30
    assert config.curator_of("few") is config.clusters["jig-k"] and config.curator_of("b") is None
    assert few.curate is not None and "clusters" not in few.curate.canonical()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"curate": {"cluster": "jk", "num_images": 3}}, "no cluster is called 'jk'; did you mean 'jig-k'?"),
        ({"curate": {"cluster": "jig-k", "num_images": 3}, "root": "x"}, "that was clustered; remove `root`."),
        ({"curate": {"cluster": "jig-k"}}, "give num_images, max_similarity or both"),
        ({"curate": {"cluster": "own", "num_images": 3}}, "circular dependency: few <- few."),
        ({"curate": {"cluster": "late", "num_images": 3}}, "circular dependency: "),
    ],
)
def test_load_refuses_curated_datasets(entry: dict[str, Any], said: str) -> None:
    content = changed("datasets/few", entry)
    content["clusters"]["own"] = {"features": "jig-conv4", "data": "few", "k": 3}
    content["students"]["cc"]["data"] = "few"
    content["features"]["cc-conv4"] = {"model": "cc", "layer": "conv4"}
    content["clusters"]["late"] = {"features": "cc-conv4", "data": "b", "k": 3}
    if entry["curate"]["cluster"] != "own":
        del content["clusters"]["own"]
    with pytest.raises(ConfigError) as error:
        complete(content)
    assert said in str(error.value)


def test_load_accepts_student_as_teacher() -> None:
    content = changed("features/cc-conv5", {"model": "cc", "layer": "conv5"})
    content["clusters"]["again"] = {"features": "cc-conv5", "data": "b", "k": 5}
    method = {"name": "cluster-classification", "cluster": "again"}
    content["students"]["cc2"] = {**content["students"]["cc"], "method": method}
    assert complete(content).model("cc2").stage == "student"


def test_baselines_are_added_for_every_backbone() -> None:
    content = changed("students/small", {**BASE["students"]["cc"], "backbone": {"name": "caffenet", "width_mult": 0.5}})
    content["evaluations"]["nn"]["models"] = ["jig", "small"]
    rows = complete(content).rows["nn"]
    assert rows == (
        *("jig", "small", "random-caffenet", "supervised-caffenet-a-train"),
        *("random-caffenet-w0.5", "supervised-caffenet-w0.5-a-train"),
    )


class OwnBackbone(BackboneOptions):
    """Options of somebody's own backbone, of kinds that the shipped ones do not have."""

    name: Literal["own"] = "own"
    depth: int = 20
    depths: tuple[int, ...] = (2, 2)
    act: str = "relu"
    gate: bool = False
    drop: float | None = None
    extra: dict[str, int] = Field({})


OTHERS: dict[str, list[Any]] = {
    "block4_stride": [1],
    "model": ["resnet34", "resnet50"],
    "return_nodes": [("layer4",), ("layer3", "layer4"), ("layer3.layer4",)],
    "output_stride": [8, 16],
    "depth": [56, 110],
    "depths": [(22,), (2, 2, 2), (3,)],
    "act": ["gelu", "re/lu", "re lu"],
    "drop": [0.1, 0.0],
    "extra": [{"a": 1}, {"a": 2}],
    "options": [{"a": 1}, {"a": 2}, {"b": "x/y"}],
    "digest": ["x", "y"],
}


@pytest.mark.parametrize(
    "kind", [*(kind for kind in BACKBONES if kind is not Exported), OwnBackbone], ids=lambda kind: kind.__name__
)
def test_baseline_names_include_backbone_options(kind: type[BackboneOptions]) -> None:
    """Two backbones that differ must not share a baseline."""
    library = {"model": "nets:resnet18" if kind is Custom else "resnet18"} if issubclass(kind, LibraryModel) else {}
    others = OTHERS | ({"model": ["nets:resnet34", "net:resnet18"]} if kind is Custom else {})
    backbones = [kind.model_validate(library)]
    for key, value in backbones[0].model_dump().items():
        usual = [not value] if isinstance(value, bool) else [2 * value] if value else [4, 5]
        for other in others.get(key, usual) if key != "name" else []:
            with suppress(ValidationError):  # an option that this backbone does not have
                backbones.append(kind.model_validate(library | {key: other}))
    different = {backbone.canonical() for backbone in backbones}
    assert len(different) > len(kind.model_fields) - 3  # every option occurs
    slugs = {backbone.slug for backbone in backbones}
    assert len(slugs) == len(different)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", slug) for slug in slugs)


def test_baselines_of_one_name_do_not_replace_each_other() -> None:
    """Two evaluations, in which students of one backbone have different schedules; and a declared model."""
    content = changed("students/longer", {**BASE["students"]["cc"], "schedule": {"epochs": 7, "batch_size": 4}})
    content["evaluations"]["again"] = {**content["evaluations"]["nn"], "models": ["longer"]}
    content["pretexts"]["random-caffenet"] = {**BASE["pretexts"]["jig"]}
    config = complete(content)
    first, second = (config.students[config.rows[name][-1]] for name in ("nn", "again"))
    assert first.schedule == config.students["cc"].schedule and second.schedule == config.students["longer"].schedule
    assert config.pretexts["random-caffenet"] == config.pretexts["jig"]
    assert [config.pretexts[name].task.name for name in config.rows["nn"][::2]] == ["jigsaw++", "random"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("pretexts/new", {"task": {"name": "imported", "file": "named"}, "backbone": "resnet18"}),
        ("datasets/new", {"format": "folder", "root": "b", "include": "named"}),
        ("datasets/new", {"format": "folder", "root": "b", "exclude": "named"}),
        (
            "evaluations/new",
            {
                "protocol": {"name": "linear-probe", "label_subset": {"file": "named"}},
                "models": ["jig"],
                "train": "a-train",
                "test": "a-val",
            },
        ),
        (
            "evaluations/new",
            {"protocol": {"name": "fast-rcnn", "proposals": ["named"]}, "models": ["jig"], "train": "v", "test": "w"},
        ),
    ],
)
def test_spec_changes_with_the_content_of_a_named_file(
    path: str, value: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kind of file that a configuration names by its path."""
    section, name = path.split("/")
    monkeypatch.chdir(tmp_path)

    def canonical() -> str:
        content = copy.deepcopy(BASE)
        content[section][name] = value
        entry = getattr(ConfigFile.model_validate(content), section)[name]
        return str(getattr(entry, "measurement", entry).canonical())

    specs = []
    for text in ("one", "two", "one"):
        (tmp_path / "named").write_text(text)
        specs.append(canonical())
    assert specs[0] == specs[2] != specs[1]
    (tmp_path / "named").unlink()
    assert '"path":"named"' in canonical()  # a cost estimate needs no files


def test_input_file_is_refused_if_it_changed_after_the_configuration_was_read(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text("one")
    file = InputFile.model_validate(str(tmp_path / "w.pth"))
    assert file.checked() == tmp_path / "w.pth"
    (tmp_path / "w.pth").write_text("another")
    again = InputFile.parse(file.canonical())  # of the manifest of a model, whose file may be gone
    with pytest.raises(ConfigError, match="has changed since the configuration was read; run snakemake again"):
        again.checked()


def test_own_weights_know_their_backbone(tmp_path: Path) -> None:
    """A .safetensors file of this package contains the backbone: it may be left out, and must not differ."""
    about = {"backbone": {"name": "resnet18", "img_size": 64, "stem_stride": 1}}
    header = json.dumps({"__metadata__": {"ssltransfer": json.dumps(about)}}).encode()
    own, other = tmp_path / "own.safetensors", tmp_path / "other.pth"
    own.write_bytes(struct.pack("<Q", len(header)) + header)
    other.write_bytes(b"\x80 a pickle")

    def teacher(file: Path, **more: Any) -> Any:
        entry = {"task": {"name": "imported", "file": str(file)}, **more}
        return complete(changed("pretexts/teacher", entry)).pretexts["teacher"].backbone

    assert teacher(own) == ResNet18(img_size=64, stem_stride=1) == teacher(own, backbone=about["backbone"])
    with pytest.raises(
        ConfigError, match=r"teacher\.backbone: .*with `img_size: 64`, not `img_size: 224`; leave `back"
    ):
        teacher(own, backbone={"name": "resnet18", "stem_stride": 1})
    with pytest.raises(ConfigError, match=r"own\.safetensors: .*with `stem_stride: 1`, not `stem_stride: null`"):
        teacher(own, backbone={"name": "resnet18", "img_size": 64})
    with pytest.raises(ConfigError, match="with `resnet18`, not `resnet50`"):
        teacher(own, backbone="resnet50")
    with pytest.raises(ConfigError, match=r"teacher: set `backbone`: .*other\.pth does not contain it, as"):
        teacher(other)
    with pytest.raises(ConfigError, match=r"set `backbone`: .*none\.pth does not exist"):
        teacher(tmp_path / "none.pth")


def test_supervised_baseline_has_schedule_of_student() -> None:
    config = complete(BASE)
    control = config.students["supervised-caffenet-a-train"]
    assert control.schedule == config.students["cc"].schedule and control.data == "a-train"


@pytest.mark.parametrize("method", ["regression", "cluster-classification"])
def test_supervised_baseline_is_omitted_for_imported_teacher(method: str) -> None:
    """A ResNet-50 from a file, whose student is a CaffeNet: nobody asked for a ResNet-50 to be trained."""
    content = changed("pretexts/teacher", {"task": {"name": "imported", "file": "teacher.pth"}, "backbone": "resnet50"})
    content["evaluations"]["nn"] |= {"models": ["teacher", "cc"], "protocol": "linear-probe"}
    rows: tuple[str, ...] = ("teacher", "cc", "random-resnet50", "supervised-resnet50-a-train", "random-caffenet")
    rows += ("supervised-caffenet-a-train",)
    assert complete(content).rows["nn"] == rows  # measured for its own sake
    if method == "regression":
        content["students"]["cc"]["method"] = {"name": method, "teacher": "teacher"}
    else:
        content["features"]["jig-conv4"] = {"model": "teacher", "layer": "pool"}
    assert complete(content).rows["nn"] == tuple(row for row in rows if row != "supervised-resnet50-a-train")
    content["evaluations"]["nn"]["models"] += ["large"]
    content["students"]["large"] = {**content["students"]["cc"], "backbone": "resnet50"}
    assert "supervised-resnet50-a-train" in complete(content).rows["nn"]


def test_declared_baseline_is_not_duplicated() -> None:
    content = changed("students/mine", {**BASE["students"]["cc"], "method": "supervised"})
    assert complete(content).rows["nn"] == ("jig", "cc", "random-caffenet", "mine")


def test_supervised_baseline_for_voc_uses_labeled_images() -> None:
    voc = {"protocol": "voc-classification", "models": ["cc"], "train": "voc-train", "test": "voc-test"}
    voc["baselines"] = ["random", "supervised"]
    rows = complete(changed("evaluations/voc", voc)).rows["voc"]
    assert rows == ("cc", "random-caffenet", "supervised-caffenet-a-train")


def test_declared_features_are_used_by_evaluations() -> None:
    config = complete(BASE)
    assert config.evaluated_features("nn", "jig") == "jig-conv4"
    assert config.evaluated_features("nn", "cc") == "cc.conv4-max5"
    assert config.datasets_of_features("jig-conv4") == {"a-train", "a-val", "b"}


def test_store_features_is_not_in_cluster_spec() -> None:
    """The clustering is not recomputed. Only features of the clustered data set are stored in any case."""
    alone = changed("evaluations", {})
    stored = complete(alone)
    alone["clusters"]["jig-k"]["store_features"] = False
    config = complete(alone)
    assert config.clusters["jig-k"].canonical() == stored.clusters["jig-k"].canonical()
    assert config.labels() == stored.labels() == {("jig-k", "a-train"), ("jig-k", "b")}
    assert stored.datasets_of_features("jig-conv4") == {"a-train", "b"}
    assert config.datasets_of_features("jig-conv4") == {"b"}
    assert [config.reads_features("jig-k", data) for data in ("a-train", "b")] == [False, True]


def test_sweeps_expand() -> None:
    content = changed("clusters/jig-k{k}", {"for": {"k": [3, 5]}, "features": "jig-conv4", "data": "b", "k": "{k}"})
    clusters = complete(content).clusters
    assert clusters["jig-k3"].k == 3 and clusters["jig-k5"].k == 5
    pairs = [{"k": 3, "seed": 1}, {"k": 5, "seed": 2}]
    content = changed(
        "clusters/jig-k{k}", {"for": pairs, "features": "jig-conv4", "data": "b", "k": "{k}", "seed": "{seed}"}
    )
    clusters = complete(content).clusters
    assert [(clusters[f"jig-k{k}"].k, clusters[f"jig-k{k}"].seed) for k in (3, 5)] == [(3, 1), (5, 2)]
    with pytest.raises(ConfigError, match=r"clusters.jig-k\{k\}.for: expected a list of values per variable"):
        complete(changed("clusters/jig-k{k}", {"for": [3, 5], "features": "jig-conv4", "data": "b", "k": "{k}"}))
    with pytest.raises(ConfigError, match=r"clusters.jig-k: duplicate name"):
        complete(changed("clusters/jig{k}", {"for": {"k": ["-k"]}, "features": "jig-conv4", "data": "b", "k": 4}))
    with pytest.raises(ConfigError, match="is not a variable of this sweep; its variables are k"):
        complete(changed("clusters/j{q}", {"for": {"k": [3]}, "features": "jig-conv4", "data": "b", "k": 3}))


def test_canonical_omits_defaults() -> None:
    one = complete(BASE).students["cc"].canonical()
    other = copy.deepcopy(BASE)
    other["students"]["cc"] = dict(reversed(other["students"]["cc"].items())) | {"seed": 0, "schedule": {"epochs": 2.0}}
    assert complete(other).students["cc"].canonical() == one
    assert "seed" not in one and '"name":"caffenet"' in one
    assert Student.parse(one) == complete(BASE).students["cc"]


def test_canonical_includes_raised_version(monkeypatch: pytest.MonkeyPatch) -> None:
    pretext = complete(BASE).pretexts["jig"]
    before = pretext.canonical()
    monkeypatch.setattr(type(pretext.task), "version", 2)
    assert pretext.canonical() != before and '"version":2' in pretext.canonical()
    assert Pretext.parse(pretext.canonical()) == pretext


def test_additional_model_keeps_other_metric_specs() -> None:
    before = complete(BASE).evaluations["nn"].measurement
    content = changed("evaluations/nn/models", ["cc"])
    assert complete(content).evaluations["nn"].measurement.canonical() == before.canonical()
    assert EvaluationSpec.parse(before.canonical()) == before


@pytest.mark.parametrize("path", sorted((REPOSITORY / "config").rglob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path: Path) -> None:
    config = read_config(path)
    assert config.rows or config.clusters
    for section in ("datasets", "pretexts", "features", "clusters", "students"):
        for entry in getattr(config, section).values():
            text = entry.canonical()
            assert yaml.safe_load(text) and "\n" not in text


@pytest.mark.parametrize("spelling", ["~/x", "~/x/", "~/./x//", "~/y/../x"])
def test_results_have_one_spelling(spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert complete({"results": spelling}).results == str(tmp_path / "x")
    assert complete({"results": "./out/"}).results == "out"


def test_read_config_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        read_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"# \xfc\nresults: x\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml: not UTF-8 text"):
        read_config(tmp_path / "latin.yaml")


def test_read_config_refuses_duplicate_keys(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("datasets:\n  a: {format: folder, root: x}\n  a: {format: folder, root: y}\n")
    with pytest.raises(ConfigError, match="line 2: duplicate key 'a'"):
        read_config(tmp_path / "c.yaml")


def test_read_config_reports_missing_and_invalid_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "c.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_config(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("protocol", "backbone", "said"),
    [
        ({"name": "segmentation"}, "caffenet", "segmentation needs masks of every image"),
        (
            {"name": "voc-classification", "data_dependent_init": True},
            "resnet18",
            "no scale of their own",
        ),
        (
            {"name": "voc-classification", "data_dependent_init": True},
            "vgg16",
            "the batch norms of",
        ),
        ({"name": "voc-classification", "data_dependent_init": True}, "caffenet", ""),
        ({"name": "voc-classification", "data_dependent_init": True, "fuse_bn": True}, "vgg16", ""),
        ({"name": "voc-classification", "data_dependent_init": True, "fuse_bn": True}, "alexnet-bn", ""),
        (
            {"name": "voc-classification", "data_dependent_init": True},
            "alexnet-bn",
            "the batch norms of",
        ),
        (
            {"name": "voc-classification", "data_dependent_init": True, "fuse_bn": True},
            {"name": "vgg19-bn", "img_size": 64},
            "no scale of their own",
        ),
        (
            {"name": "voc-classification", "data_dependent_init": True, "fuse_bn": True},
            "mobilenet-v2",
            "no scale of their own",
        ),
        ({"name": "voc-classification", "fuse_bn": True}, "mobilenet-v2", ""),
        ({"name": "voc-classification", "fuse_bn": True}, "revnet50", "batch norms that do not directly follow"),
        ({"name": "voc-classification", "fuse_bn": True}, "resnet50-v2", "batch norms that do not directly follow"),
    ],
)
def test_load_checks_fine_tuning(protocol: dict[str, Any], backbone: Any, said: str) -> None:
    content = changed("pretexts/jig/backbone", backbone)
    content |= {"features": {}, "clusters": {}, "students": {}}
    content["evaluations"] = {
        "fine": {"protocol": protocol, "models": ["jig"], "train": "voc-train", "test": "voc-test"}
    }
    if not said:
        complete(content)
        return
    with pytest.raises(ConfigError, match=said):
        complete(content)


def test_load_checks_library_backbones() -> None:
    backbone: dict[str, Any] = {"name": "torchvision", "model": "resnet18"}
    content = changed("pretexts/jig/backbone", backbone)
    content["pretexts"]["jig"]["task"] = "rotation"
    content |= {"features": {}, "clusters": {}, "students": {}}
    content["datasets"]["c"] = content["datasets"]["a-train"] | {"root": "elsewhere"}
    by_layer: dict[str, Any] = {"protocol": "finetune-from-layer", "models": ["jig"], "train": "a-train", "test": "c"}
    content["evaluations"] = {"by-layer": by_layer}
    with pytest.raises(
        ConfigError, match="finetune-from-layer runs a network layer by layer, which torchvision \\(jig\\)"
    ):
        complete(content)
    by_layer["protocol"] = {"name": "knn", "layer": "layer4", "pool": {"avg": 1}}
    with pytest.raises(ConfigError, match=r"model 'jig' \(torchvision\) has no layer 'layer4'"):
        complete(content)
    backbone["return_nodes"] = ["layer4"]
    assert complete(content).features["jig.layer4-avg1"].layer == "layer4"


def test_motion_segmentation_requires_videos() -> None:
    content = changed("datasets/films", {"format": "video", "root": "films", "motion": {"clip_stride": 20}})
    schedule = {"steps": 10, "batch_size": 4, "lr": 0.01}
    moves: dict[str, Any] = {"task": "motion-segmentation", "backbone": "resnet101-v2", "data": "films"}
    moves["schedule"] = schedule
    content["pretexts"]["moves"] = moves
    config = complete(content)
    # The index is the same whatever is made of the videos.
    films = config.datasets["films"]
    assert isinstance(films, Video)
    assert films.canonical() == '{"format":"video","root":"films"}'
    assert films.motion.canonical() == '{"clip_stride":20,"format":"jpeg"}'
    moves["val"] = "again"
    content["datasets"]["again"] = content["datasets"]["films"] | {"motion": {"clip_stride": 5}}
    with pytest.raises(ConfigError, match="data and val have the same images"):
        complete(content)
    content["datasets"]["again"] |= {"split": "val"}
    complete(content)
    content["datasets"]["again"]["cache"] = {}
    with pytest.raises(ConfigError, match="the motion stage already packs the frames of videos"):
        complete(content)
    moves["val"] = None
    moves["data"] = next(name for name in content["datasets"] if name not in ("films", "again"))
    del content["datasets"]["again"]
    with pytest.raises(ConfigError, match=r"needs motion of every image.*name a dataset of format"):
        complete(content)


def test_segmentation_requires_masks() -> None:
    content = changed("datasets/seg", {"format": "sbd", "root": "s", "split": "train"})
    content["datasets"]["val"] = {"format": "voc", "root": "v", "year": "2012", "split": "val", "targets": "masks"}
    content["datasets"]["val"]["exclude"] = "s/dataset/train.txt"
    content["evaluations"] = {"seg": {"protocol": "segmentation", "models": ["jig"], "train": "seg", "test": "val"}}
    assert set(complete(content).rows["seg"]) == {"jig", "random-caffenet"}
    content["datasets"]["seg"]["cache"] = {}
    with pytest.raises(ConfigError, match="belong to images of full size"):
        complete(content)


@pytest.mark.parametrize("name", ["on", "no", "2024", "2024-05-01"])
def test_names_that_yaml_reads_as_other_things_are_refused(tmp_path: Path, name: str):
    (tmp_path / "c.yaml").write_text(f"datasets: {{{name}: {{format: folder, root: a}}}}")
    with pytest.raises(ConfigError, match=r"datasets: the name .* write it in quotes"):
        read_config(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text(f"datasets: {{'{name}': {{format: folder, root: a}}}}")
    assert list(read_config(tmp_path / "c.yaml").datasets) == [name]


def test_paths_expand_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "w.pth").write_bytes(b"weights")
    content = {
        "results": "$SCRATCH/x",
        "datasets": {"a": {"format": "folder", "root": "${SCRATCH}/images"}},
        "pretexts": {"t": {"task": {"name": "imported", "file": "$SCRATCH/w.pth"}, "backbone": "resnet18"}},
    }
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    config = complete(content)
    assert (config.results, config.datasets["a"].root) == (f"{tmp_path}/x", f"{tmp_path}/images")
    task = config.pretexts["t"].task
    assert isinstance(task, Imported) and task.file and task.file.digest
    monkeypatch.delenv("SCRATCH")
    for section in content:
        with pytest.raises(ConfigError, match=r"environment variable .* is not set"):
            complete({section: content[section]})


def test_word_instead_of_list_names_the_list():
    with pytest.raises(ConfigError, match=r"evaluations\.nn\.models: expected a list: write \[jig\]\."):
        complete(changed("evaluations/nn/models", "jig"))


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"name": "compress-1q"}, "are features of a file; set `precompute_teacher: true`"),
        ({"name": "regression", "precompute_teacher": True, "teacher_layer": "pool"}, "remove `teacher_layer`"),
        ({"name": "layer-regression", "layers": ["conv4"]}, "compares layers of networks"),
        ({"name": "feature-distillation", "map_weight": 1}, "which have no maps; name a model, or remove the key"),
    ],
)
def test_features_of_a_file_teach_only_cached(method: dict[str, Any], said: str) -> None:
    content = changed("features/clip", {"file": "clip.parquet"})
    content["students"]["s"] = {**content["students"]["cc"], "method": {"teacher": "clip", **method}}
    with pytest.raises(ConfigError, match=said):
        complete(content)


def test_further_teachers_are_made_before_a_student() -> None:
    content = copy.deepcopy(BASE)
    names = list(content["pretexts"])
    method = {"name": "feature-distillation", "teacher": names[0], "further_teachers": [{"teacher": "cc"}]}
    content["students"]["s"] = {**content["students"]["cc"], "method": method}
    config = complete(content)
    assert config.sources_of("s") == [names[0], "cc"] and config.teacher_of("s") == names[0]
    content["students"]["cc"] = {
        **content["students"]["s"],
        "method": {**method, "further_teachers": [{"teacher": "s"}]},
    }
    with pytest.raises(ConfigError, match="s"):
        complete(content)


def test_features_of_a_file_are_read_for_every_dataset() -> None:
    """Labels of other datasets are read from the file too, because no model could compute them."""
    content = changed("features/jig-conv4", {"file": "clip.parquet"})
    content["clusters"]["jig-k"]["store_features"] = False
    cached = {"name": "regression", "teacher": "jig-conv4", "precompute_teacher": True}
    content["students"]["s"] = {**content["students"]["cc"], "method": cached, "val": "a-val"}
    config = complete(content)
    assert config.datasets_of_features("jig-conv4") == {"b", "a-train", "a-val"}
    assert config.teacher_features_of("s") == "jig-conv4"
    assert (config.teacher_of("cc"), config.teacher_of("s")) == (None, None)


@pytest.mark.parametrize(
    ("exports", "said"),
    [
        ({"a.h5": "jig"}, "exports.a.h5: the suffix selects the format; use one of .pth, .safetensors, .pt2, .onnx"),
        ({"a.onnx": "jigg"}, "exports.a.onnx.model: no model is called 'jigg'; did you mean 'jig'?"),
        ({"a.pth": {"model": "jig", "layer": "conv4"}}, "exports.a.pth.layer: a .pth file has all layers"),
        ({"a.pt2": {"model": "jig", "layer": "conv9"}}, "exports.a.pt2.layer: model 'jig' (caffenet) has no layer"),
        ({"a.pt2": "words"}, "exports.a.pt2.model: words (hog-words) is not a network; use .safetensors"),
    ],
)
def test_load_refuses_exports(exports: dict[str, Any], said: str) -> None:
    words = {"task": "hog", "backbone": "hog-words", "data": "b"}
    content = {**changed("pretexts/words", words), "exports": exports}
    with pytest.raises(ConfigError, match=re.escape(said)):
        complete(content)


def test_exports_have_sweeps_and_paths() -> None:
    sweep = {"jig.{kind}": {"for": {"kind": ["pth", "pt2"]}, "model": "jig"}, "cc.onnx": "cc"}
    config = complete({**BASE, "exports": sweep})
    assert export_paths(config) == [f"results/export/{name}" for name in ("jig.pth", "jig.pt2", "cc.onnx")]
    assert config.exports["cc.onnx"].model == "cc"


def test_auto_epochs_are_not_for_probes() -> None:
    probe = {"protocol": {"name": "linear", "schedule": {"epochs": "auto"}}, "models": ["jig"], "train": "a-train"}
    with pytest.raises(ConfigError, match="auto is for pretexts and students"):
        complete(changed("evaluations/nn", {**probe, "test": "a-val"}))
