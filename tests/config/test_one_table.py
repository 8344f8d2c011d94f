"""One table of a report: all that it needs, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssltransfer.config import Config, ConfigError, only_table, read_config
from ssltransfer.config.outputs import report_inputs, report_path

CONFIG = Path(__file__).parents[2] / "config"
PATHS = [CONFIG / f"{name}.yaml" for name in ("noroozi2018", "compress2020", "kolesnikov2019", "doersch2017")]
PATHS += sorted((CONFIG / "studies").glob("*.yaml"))


def names_in(config: Config) -> set[str]:
    return {path for paths in report_inputs(config).values() for path in paths}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_table_of_a_paper_is_a_part_of_its_configuration(path: Path) -> None:
    """Every path that jobs of the part read is made by the part, with equal options. All tables cover all columns."""
    whole = read_config(path)
    covered = set()
    for table in whole.report.tables:
        part = only_table(whole, table.title)
        assert names_in(part) <= names_in(whole)
        for section in ("datasets", "pretexts", "features", "clusters", "students", "evaluations"):
            entries = getattr(part, section)
            assert entries.items() <= getattr(whole, section).items()
            # In their order, which is that of the jobs.
            assert list(entries) == [name for name in getattr(whole, section) if name in entries]
        for name in part.models:
            assert part.models.keys() >= set(part.sources_of(name))
            assert part.datasets.keys() >= set(part.models[name].datasets)
        for name in part.features:
            assert part.has_file(name) or part.features[name].model in part.models
            assert part.datasets.keys() >= part.datasets_of_features(name) != set()
        for name, cluster in part.clusters.items():
            assert cluster.features in part.features and {data for one, data in part.labels() if one == name}
        assert part.report.tables == (table,) and part.table == table.title
        covered |= set(report_inputs(part)["metrics"])
    shown = {key.partition(":")[0] for table in whole.report.tables for key in table.columns}
    assert {path.split("/")[-2] for path in covered} == shown


def test_table_leaves_out_what_it_does_not_need() -> None:
    whole = read_config(CONFIG / "noroozi2018.yaml")
    part = only_table(whole, "table 1")
    assert set(part.datasets) == {"imagenet-train", "imagenet-val", "voc07-trainval", "voc07-test"}
    assert list(part.pretexts) == ["jigsawpp"] and list(part.features) == ["jigsawpp-conv4"]
    assert len(part.students) == len(part.clusters) == 5 and list(part.evaluations) == ["voc07-cls"]
    assert report_path(part) == "results/noroozi2018/report/tables/table-1-number-of-clusters/index.html"
    assert report_path(whole) == "results/noroozi2018/report/index.html"


def test_curated_datasets_need_their_clusters(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        """
        datasets:
          raw: {format: imagefolder, root: a, split: train}
          some: {curate: {cluster: groups, num_images: 9}}
          test: {format: imagefolder, root: b, split: val}
        pretexts:
          first: {task: random, backbone: resnet18}
          second: {task: rotation, backbone: resnet18, data: some, schedule: {steps: 1, batch_size: 2, lr: 1}}
          unused: {task: random, backbone: resnet50}
        features: {deep: {model: first, layer: pool}}
        clusters: {groups: {features: deep, data: raw, k: 3}}
        evaluations: {nn: {protocol: knn, models: [second, unused], baselines: [], train: some, test: test}}
        report: {tables: [{title: One, columns: [nn], rows: [second]}]}
        """
    )
    part = only_table(read_config(tmp_path / "c.yaml"), "one")
    assert set(part.datasets) == {"raw", "some", "test"} and set(part.clusters) == {"groups"}
    assert set(part.pretexts) == {"first", "second"} and part.rows == {"nn": ("second",)}


@pytest.mark.parametrize(
    ("title", "message"),
    [
        (
            "to PASCAL VOC",
            "several tables have these words in the title; name one of: Table 3: .*; Table 3: .*rescaled",
        ),
        ("table 9", "no table of the report has these words in the title; name one of: Table 1: number of clusters; "),
    ],
)
def test_unclear_table_error_lists_the_tables(title: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^table '{title}': {message}"):
        only_table(read_config(CONFIG / "noroozi2018.yaml"), title)


def test_equal_title_wins() -> None:
    part = only_table(read_config(CONFIG / "noroozi2018.yaml"), "Table 3: transfer to PASCAL VOC")
    assert part.table == "Table 3: transfer to PASCAL VOC"
