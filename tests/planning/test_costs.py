"""Cost estimates against known numbers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from ssltransfer.config import complete, read_config
from ssltransfer.config.backbones import (
    AlexNet,
    AlexNetBN,
    CaffeNet,
    MobileNetV2,
    ResNet50,
    ResNet50V2,
    ResNet101V2,
    RevNet50,
    Torchvision,
    Vgg16,
    Vgg19BN,
)
from ssltransfer.config.entities import Pretext
from ssltransfer.config.formats import CacheOptions
from ssltransfer.planning.caches import enlarged
from ssltransfer.planning.costs import FLOW_PIXELS, classes, estimate, images
from ssltransfer.planning.machine import Machine
from ssltransfer.planning.makespan import jobs_before
from ssltransfer.planning.networks import flops, parameters, segmentation_flops, task_flops
from ssltransfer.planning.summary import print_estimate

REPOSITORY = Path(__file__).parents[2]
PAPER = read_config(REPOSITORY / "config/noroozi2018.yaml")


@pytest.mark.parametrize(
    ("backbone", "giga"),
    # Multiply-adds as published for 1000-way networks (fvcore's and torchvision's tables), without the last layer.
    [
        *((AlexNet(), 0.71), (AlexNetBN(), 0.71), (Vgg16(bn=False), 15.47), (Vgg19BN(), 19.63), (ResNet50(), 4.09)),
        *((ResNet50V2(), 4.09), (MobileNetV2(), 0.30), (Torchvision(model="regnet_y_400mf"), 0.40)),
    ],
)
def test_flops_equal_published_numbers(backbone: object, giga: float) -> None:
    assert flops(backbone, include_top=True) / 2e9 == pytest.approx(giga, rel=0.02)


def test_parameters_equal_those_of_caffe() -> None:
    """60,965,224 with the 1000-way fc8 (bvlc_reference_caffenet)."""
    assert parameters(CaffeNet(), include_top=True) + 4096 * 1000 + 1000 == 60_965_224


def test_flops_ignore_grad_checkpointing() -> None:
    assert flops(RevNet50()) == flops(RevNet50(grad_checkpointing=True)) > 1e9


def test_estimate_of_noroozi2018_matches_hand_calculation() -> None:
    costs = {
        cost.stage + " " + cost.name: cost
        for cost in estimate(read_config(REPOSITORY / "config/noroozi2018.yaml"), Machine())
    }
    features = costs["features jigsawpp-conv4 on imagenet-train"]
    assert features.disk_gb == pytest.approx(1_281_167 * 9600 * 2 / 1e9)
    cluster = costs["cluster jigsawpp-k2000"]
    assert cluster.memory_gb == pytest.approx(24.6, abs=0.1)
    # 49.15 TFLOP an iteration, 50 iterations, at the assumed 30 TFLOP/s.
    assert cluster.hours == pytest.approx(49.15 * 50 / 30 / 3600, rel=0.01)
    student = costs["student cc-jigsawpp-k2000"]
    assert student.limit == "decoding" and student.hours == pytest.approx(450_000 * 256 / (350 * 16) / 3600)
    # Nine tiles of each image: forward and backward in the student, forward in its teacher.
    beside = costs["student kd-jigsawpp-vgg16"]
    flop = 3 * task_flops(PAPER.pretexts["jigsawpp"]) + task_flops(PAPER.pretexts["jigsawpp-vgg16"])
    assert beside.limit == "device" and beside.hours == pytest.approx(350_000 * 256 * flop / 30e12 / 3600)
    assert beside.needs == ("jigsawpp-vgg16", "imagenet-train", "imagenet-val")
    assert beside.disk_gb == pytest.approx(costs["pretext jigsawpp"].disk_gb)


def test_estimate_without_stored_features_adds_a_pass(tmp_path: Path) -> None:
    text = (
        (REPOSITORY / "config/noroozi2018.yaml")
        .read_text()
        .replace('k: "{k}"\n', 'k: "{k}"\n    store_features: false\n', 1)
    )
    (tmp_path / "config.yaml").write_text(text)
    stored, passing = (
        {f"{cost.stage} {cost.name}": cost for cost in estimate(read_config(file), Machine(tflops=1))}
        for file in (REPOSITORY / "config/noroozi2018.yaml", tmp_path / "config.yaml")
    )
    job = "label jigsawpp-k2000 on places-train"
    assert stored[job].hours == 0 and stored[job].needs == ("jigsawpp-k2000", "jigsawpp-conv4", "places-train")
    assert passing[job].needs == ("jigsawpp-k2000", "jigsawpp", "places-train")
    # The same pass over the images as for stored features.
    assert passing[job].hours == stored["features jigsawpp-conv4 on places-train"].hours
    assert passing["label jigsawpp-k2000 on imagenet-train"] == stored["label jigsawpp-k2000 on imagenet-train"]


def test_print_estimate_shows_jobs_memory_and_assumptions(capsys: pytest.CaptureFixture[str]) -> None:
    print_estimate(read_config(REPOSITORY / "config/noroozi2018.yaml"))
    text = capsys.readouterr().out
    assert "jigsawpp-conv4 on imagenet-train" in text and "24.6 GB" in text and "Assumed, not measured" in text


def test_print_estimate_aligns_jobs_of_long_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = [72 * "x" + end for end in ("", "-1", "-2")]
    text = "pretexts:\n" + "".join(f"  {name}: {{task: random, backbone: caffenet}}\n" for name in (*long, "short"))
    (tmp_path / "c.yaml").write_text(text)
    print_estimate(read_config(tmp_path / "c.yaml"))
    rows = [re.match(r"  (\S+) +< 1 s +\S+ MB", line) for line in capsys.readouterr().out.splitlines()]
    found = {row[1]: row.end() for row in rows if row and row[1] in (*long, "short")}
    assert set(found) == {*long, "short"} and len(set(found.values())) == 1


def test_print_estimate_marks_sums_with_unknown_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that was not indexed has an unknown number of images, so its hours are unknown too."""
    print_estimate(read_config(REPOSITORY / "config/compress.yaml"))
    rows = {line.split()[0]: line.split()[2:] for line in capsys.readouterr().out.splitlines() if line}
    assert rows["features"][:2] == ["?", "-"] and rows["pretext"][:3] == ["<", "1", "s"]
    assert rows["all"][:3] == [">", "1", "s"] and rows["all"][3] == ">"


def test_memory_of_a_student_includes_networks_that_run_beside_it(tmp_path: Path) -> None:
    """ResNet-50: 23.5 million parameters, largest layer 64 x 112 x 112 or 256 x 56 x 56, which are equal."""
    text = """
    datasets: {images: {format: folder, root: x, num_images_hint: 1000}}
    pretexts: {teacher: {task: random, backbone: resnet50}}
    students:
      cached: &student {method: {name: compress-1q, teacher: teacher, precompute_teacher: true}, data: images,
                        backbone: resnet18, schedule: {steps: 9, batch_size: 32, micro_batch_size: 16, lr: 1}}
      online: {<<: *student, method: {name: compress-1q, teacher: teacher}}
      momentum: {<<: *student, method: {name: compress-2q, teacher: teacher}}
    """
    (tmp_path / "c.yaml").write_text(text)
    costs = estimate(read_config(tmp_path / "c.yaml"), Machine())
    memory = {cost.name: cost.memory_gb for cost in costs if cost.stage == "student"}
    assert set(memory) == {"cached", "online", "momentum"} and None not in memory.values()
    largest = 16 * (802816 * 4 * 2) / 1e9
    assert memory["online"] - memory["cached"] == pytest.approx(23_508_032 * 4e-9 + largest, rel=0.01)  # type: ignore[operator]
    assert memory["momentum"] - memory["online"] == pytest.approx(11_176_512 * 4e-9 + largest, rel=0.01)  # type: ignore[operator]


def test_estimate_includes_caches_and_enlarged_lists_small_ones(tmp_path: Path) -> None:
    content = yaml.safe_load((REPOSITORY / "config/noroozi2018.yaml").read_text())
    data = content["pretexts"]["jigsawpp"]["data"]
    content["datasets"][data]["cache"] = {"format": "raw", "short_side": 128}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    config = read_config(tmp_path / "c.yaml")
    costs = {(cost.stage, cost.name): cost for cost in estimate(config, Machine())}
    plain = {(cost.stage, cost.name): cost for cost in estimate(PAPER, Machine())}
    assert costs["cache", data].disk_gb == pytest.approx(1_281_167 * 3 * 128**2 * 4 / 3 / 1e9)
    assert (set(costs) - set(plain)) == {("cache", data)}
    of_data, other = ("features", f"jigsawpp-conv4 on {data}"), ("student", "cc-jigsawpp-k2000")
    assert plain[of_data].limit == "decoding" and costs[of_data].hours < plain[of_data].hours  # type: ignore[operator]
    assert config.students["cc-jigsawpp-k2000"].data == data or costs[other] == plain[other]
    (line,) = enlarged(config)
    assert line.startswith(f"The cache of {data} has a short side of 128 pixels and is enlarged by ")
    assert "pretext/jigsawpp (256)" in line and not list(enlarged(PAPER))


def test_task_flops_count_views_and_tiles() -> None:
    """Four rotations, eight views, and nine tiles for any number of permutations."""
    given = {"backbone": "resnet18", "data": "x", "schedule": {"steps": 1}}
    costs = {
        name: task_flops(Pretext.model_validate({"task": name, **given}))
        for name in ("rotation", "exemplar", "jigsaw", "jigsaw-kolesnikov", "relative-patch-location")
    }
    assert costs["exemplar"] == 2 * costs["rotation"]
    assert costs["jigsaw-kolesnikov"] == costs["relative-patch-location"] == costs["jigsaw"]


def test_estimate_of_videos_counts_clips(tmp_path: Path) -> None:
    """1000 clips of nine flows each; the backbone sees 240 x 320 pixels of a frame."""
    (tmp_path / "c.yaml").write_text("""
datasets: {films: {format: video, root: films, num_images_hint: 1000}}
pretexts:
  moves:
    task: motion-segmentation
    backbone: {name: caffenet, img_size: 240}
    data: films
    schedule: {epochs: 2, batch_size: 10, lr: 0.1}
""")
    config = read_config(tmp_path / "c.yaml")
    costs = {cost.stage: cost for cost in estimate(config, Machine(cores=2))}
    assert costs["motion"].needs == ("films",) and costs["motion"].limit == "optical flow"
    assert costs["motion"].hours == pytest.approx(1000 * 9 * 240 * 320 / FLOW_PIXELS / 2 / 3600)
    assert costs["motion"].disk_gb == pytest.approx(1000 * 240 * 320 * CacheOptions().bytes_per_pixel / 1e9)
    assert task_flops(config.pretexts["moves"]) == pytest.approx(flops(CaffeNet(img_size=240)) * 320 / 240)
    assert list(jobs_before(list(estimate(config, Machine()))).values())[2] == {0, 1}


def test_estimate_of_curated_datasets_follows_their_clusters(tmp_path: Path) -> None:
    """10,000 images in 10 clusters: 1000 comparisons of 4096 features for each. Then a training on 500 of them."""
    (tmp_path / "c.yaml").write_text("""
results: results
datasets:
  photos: {format: folder, root: photos, num_images_hint: 10000}
  few: {curate: {cluster: tens, num_images: 500, max_similarity: 0.9}}
pretexts:
  teacher: {task: random, backbone: caffenet}
  turns: {task: rotation, backbone: caffenet, data: few, init: teacher, schedule: {epochs: 2, batch_size: 10, lr: 0.1}}
features: {teacher: {model: teacher, layer: fc7}}
clusters: {tens: {features: teacher, data: photos, k: 10, max_iter: 20, resample: 5, resample_points: 500}}
""")
    config = read_config(tmp_path / "c.yaml")
    costs = list(estimate(config, Machine()))
    jobs = [f"{cost.stage} {cost.name}" for cost in costs]
    assert [job for job in jobs if job.startswith("index")] == ["index photos"] and images(config, "few") == 500
    curated, cluster, turns = (jobs.index(job) for job in ("curate few", "cluster tens", "pretext turns"))
    flop = 1e4 * 1e3 * 4096 * 2
    assert costs[curated].hours == pytest.approx(flop / Machine().rate("products") / 3600)
    # 20 iterations; then five times 20 on half of the images and one pass.
    flop = 2 * 1e4 * 4096 * 10 * (20 + 5 * (0.5 * 20 + 1))
    assert costs[cluster].hours == pytest.approx(flop / Machine().rate("products") / 3600)
    before = jobs_before(costs)
    needed = {"index photos", "features teacher on photos", "cluster tens", "label tens on photos"}
    assert {jobs[job] for job in before[curated]} == needed
    assert {jobs[job] for job in before[turns]} == {"curate few", "pretext teacher"}


@pytest.mark.parametrize("options", [{"max_similarity": 0.9}, {"num_images": 5}])
def test_estimate_of_curated_datasets_of_features_of_a_file(options: dict[str, float], tmp_path: Path) -> None:
    """100 images in two clusters: 50 comparisons of 8 features for each."""
    np.savez(tmp_path / "v.npz", paths=np.array(["a.jpg"]), vectors=np.ones((1, 8), np.float32))
    config = complete(
        {
            "datasets": {
                "photos": {"format": "folder", "root": str(tmp_path), "num_images_hint": 100},
                "few": {"curate": {"cluster": "halves", **options}},
            },
            "features": {"elsewhere": {"file": str(tmp_path / "v.npz")}},
            "clusters": {"halves": {"features": "elsewhere", "data": "photos", "k": 2}},
        }
    )
    (curated,) = (cost for cost in estimate(config, Machine()) if cost.stage == "curate")
    flop = 2.0 * 100 * 50 * 8 if "max_similarity" in options else 0.0
    assert curated.hours == pytest.approx(flop / Machine().rate("products") / 3600)


def test_segmentation_flops_match_hand_calculation(tmp_path: Path) -> None:
    """CaffeNet on 375 x 500 padded by 100: maps of 142 x 173, 71 x 86, 35 x 43, and 12 x 16 cells of fc6."""
    convolutions = 142 * 173 * 96 * 363 + 71 * 86 * 256 * 1200 + 35 * 43 * (384 * 2304 + 384 * 1728 + 256 * 1728)
    convolutions += 71 * 86 * 96**2 + 35 * 43 * 256**2  # sums over neighboring channels
    by_hand = convolutions + 12 * 16 * (9216 * 4096 + 4096**2 + 4096 * 21)
    assert segmentation_flops(CaffeNet(), 100) / 2 == pytest.approx(by_hand)
    (tmp_path / "config.yaml").write_text("""
datasets:
  sbd: {format: sbd, root: s, split: train}
  val: {format: voc, root: v, year: "2012", split: val, targets: masks}
evaluations:
  seg: {protocol: segmentation, models: [r], train: sbd, test: val, baselines: []}
pretexts:
  r: {task: random, backbone: caffenet}
""")
    costs = {cost.name: cost for cost in estimate(read_config(tmp_path / "config.yaml"), Machine())}
    assert costs["seg of r"].hours is not None and costs["seg of r"].hours > 1


def test_task_flops_count_patches() -> None:
    """At output stride 8 a network of convolutions costs by the pixel."""

    def cost(task: dict[str, object]) -> float:
        spec = {"task": task, "backbone": "resnet101-v2", "data": "d", "schedule": {"steps": 1}}
        return task_flops(Pretext.model_validate(spec)) / flops(ResNet101V2())

    pixels = 224**2
    assert cost({"name": "colorization"}) == pytest.approx(256**2 / pixels, rel=0.02)
    assert cost({"name": "exemplar-patches"}) == pytest.approx(2 * 96**2 / pixels, rel=0.05)
    assert cost({"name": "relative-position-residual"}) == pytest.approx(16 * 96**2 / pixels, rel=0.05)


def test_images_are_counted_in_existing_folders(tmp_path: Path):
    """At any depth below the classes, and in both parts of a holdout; a missing folder and a hint are not counted.

    Classes too; those of a folder that is not listed are taken to be ImageNet's.
    """
    for name in ("a/1.png", "a/deep/er/2.png", "b/3.jpg", "b/x/4.JPEG", "b/notes.txt"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"not opened")
    whole = {"format": "imagefolder", "root": str(tmp_path / "images")}
    parts = {part: whole | {"holdout": {"num_images": 1, "part": part}} for part in ("train", "val")}
    others = {"none": whole | {"root": str(tmp_path / "none")}, "hint": whole | {"num_images_hint": 9}}
    config = complete({"results": str(tmp_path), "datasets": {"whole": whole, **parts, **others}})
    assert {name: images(config, name) for name in config.datasets} == {
        "whole": 4,
        "train": 3,
        "val": 1,
        "none": None,
        "hint": 9,
    }
    assert [classes(config, name) for name in ("whole", "none", "hint")] == [2, 1000, 1000]


def test_logistic_regression_costs_by_the_classes_of_the_index(objects_path: Path, tmp_path: Path) -> None:
    """2 N D C for the logits and as many for their gradients, in 200 iterations."""
    (tmp_path / "index").mkdir()
    for name in ("x", "y"):
        (tmp_path / "index" / f"{name}.parquet").write_bytes(objects_path.read_bytes())
    protocol = {"protocol": {"name": "logreg", "layer": "fc7"}}
    config = complete(
        {
            "results": str(tmp_path),
            "datasets": {name: {"format": "imagefolder", "root": name} for name in ("x", "y")},
            "pretexts": {"r": {"task": "random", "backbone": {"name": "caffenet", "width_mult": 0.125}}},
            "evaluations": {"e": {**protocol, "models": ["r"], "baselines": [], "train": "x", "test": "y"}},
        }
    )
    assert (images(config, "x"), classes(config, "x")) == (48, 12)
    (cost,) = (job for job in estimate(config, Machine(paces={"products": 1e9})) if job.stage == "evaluate")
    assert cost.hours == pytest.approx(4 * 48 * 512 * 12 * 200 / 1e9 / 3600)
