"""What must hold of every protocol, whatever it measures: its numbers are a function of spec and inputs alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssltransfer.artifacts.index import read_index, write_index
from ssltransfer.config.backbones import ResNet18
from ssltransfer.config.entities import EvaluationSpec, Features
from ssltransfer.config.protocols import PROTOCOLS, FeatureProtocol
from ssltransfer.stages import evaluate, features
from ssltransfer.training.devices import Devices
from tests.helpers import HELPERS
from tests.helpers.pretended_cuda import CUDA, on_gpu
from tests.helpers.protocol_inputs import make_model

DRIVER = HELPERS / "protocol_laws.py"
PACKAGE = "ssltransfer.protocols"


def schedule(**changes: Any) -> dict[str, Any]:
    return {"steps": 4, "batch_size": 4, "lr": 0.01, **changes}


@dataclass(frozen=True)
class Case:
    """A protocol at a tiny size.

    Attributes:
        options: of the protocol.
        sets: fixture of the training and the test images.
        model: conv (no fully-connected layers), full or residual.
        constant: module and name of how many are tested in one pass, and another number for it.
        passes: whether micro-batches may change nothing: no batch norms learn statistics.
        ordered: why the test images' order has a part in the numbers.
        near: how far values may be apart that are equal up to rounding, in their own unit.
    """

    options: dict[str, Any]
    sets: str = "objects"
    model: str = "conv"
    constant: tuple[str, str, int] | None = None
    passes: bool = True
    ordered: str = ""
    near: float = 1e-6


FEATURES = {"layer": "conv4", "pool": {"max": 3}}
EXTRACTION = ("ssltransfer.training.extraction", "BATCH", 7)
CROPS = (f"{PACKAGE}.layers", "BATCH", 7)
ROIS_PER_PASS = (f"{PACKAGE}.detection.detector", "ROIS_PER_PASS", 16)
PROBE = {**FEATURES, "schedule": schedule()}
PROBES = (f"{PACKAGE}.probes", "BATCH", 7)
IMAGES = {
    "min_size": [64, 80],
    "max_size": 200,
    "test_min_size": 64,
    "roi_batch_size_per_image": 16,
    "score_thresh": 0.0,
    "detections_per_img": 1000,
}

CASES = {
    "linear-probe-per-layer": Case(
        {"max_features": 400, "schedule": schedule(sync_bn=True)}, constant=CROPS, passes=False
    ),
    "finetune-from-layer": Case({"layers": ["conv4"], "dropout": 0, "schedule": schedule()}, constant=CROPS),
    "knn": Case({**FEATURES, "k": 5}, constant=EXTRACTION),
    "cluster-alignment": Case({**FEATURES, "max_iter": 4}, constant=EXTRACTION),
    "cluster-quality": Case(
        {**FEATURES, "k": [3, 5]}, constant=EXTRACTION, ordered="the images that k-means starts from are drawn by place"
    ),
    "logreg": Case({**FEATURES, "l2": 1e-4}, constant=EXTRACTION),
    "retrieval": Case(FEATURES, constant=EXTRACTION),
    "linear": Case(PROBE, constant=PROBES),
    "linear-probe": Case(PROBE, constant=PROBES),
    "mlp-probe": Case({**PROBE, "hidden_dim": 16, "dropout": 0}, constant=PROBES),
    "frozen-block3": Case({"schedule": schedule()}, model="residual", constant=PROBES),
    "voc-classification": Case(
        {"crops": 2, "dropout": 0, "schedule": schedule()},
        sets="voc",
        constant=(f"{PACKAGE}.voc_classification", "TEST_BATCH", 7),
        ordered="crops of a test image are drawn by its place",
        near=0.01,
    ),
    "fast-rcnn": Case(
        {"proposals": "grid", "dropout": 0, "multiscale_min_size": [64, 96], "schedule": schedule(), **IMAGES},
        sets="boxes",
        model="full",
        constant=ROIS_PER_PASS,
        near=0.01,
    ),
    "faster-rcnn": Case(
        {
            "anchor_scales": [1, 2, 4],
            "rpn_batch_size_per_image": 64,
            "rpn_post_nms_top_n": [100, 50],
            "schedule": schedule(),
            **IMAGES,
        },
        sets="boxes",
        model="residual",
        constant=ROIS_PER_PASS,
        near=0.01,
    ),
    "segmentation": Case(
        {"padding": 40, "dropout": 0, "schedule": schedule(micro_batch_size=2, lr=0.05)}, sets="masks", near=0.01
    ),
    "depth": Case(
        {"resize": [48, 64], "crop": [42, 60], "decoder_dim": 16, "schedule": schedule(sync_bn=True)},
        sets="rooms",
        model="residual",
        constant=(f"{PACKAGE}.depth", "TEST_BATCH", 7),
        passes=False,
        near=0.01,
    ),
}
OF_FEATURES = [kind.model_fields["name"].default for kind in PROTOCOLS if issubclass(kind, FeatureProtocol)]
TRAINING = [kind.model_fields["name"].default for kind in PROTOCOLS if kind.needs_train]
TRAINED = [kind.model_fields["name"].default for kind in PROTOCOLS if "schedule" in kind.model_fields]


def test_cases_cover_every_protocol() -> None:
    assert set(CASES) == {kind.model_fields["name"].default for kind in PROTOCOLS}
    assert set(OF_FEATURES) | set(TRAINED) == set(CASES), "a protocol neither reads features nor has a schedule"


@dataclass
class Bench:
    """All protocols' inputs, and what an undisturbed run in this process gave."""

    root: Path
    sets: dict[str, tuple[Path, Path]]
    models: dict[str, Path]
    undisturbed: dict[str, Path] = field(default_factory=dict)

    def spec(self, name: str, **changes: Any) -> EvaluationSpec:
        """The measurement of a protocol; `changes` go into its schedule."""
        options = {"name": name, **CASES[name].options}
        if changes:
            options["schedule"] = options["schedule"] | changes
        trains = {"train": "a"} if name in TRAINING else {}
        return EvaluationSpec.model_validate({"protocol": options, "test": "b", **trains})

    def inputs(self, name: str) -> dict[str, Path]:
        case = CASES[name]
        train, test = self.sets[case.sets]
        return {"model": self.models[case.model], "test": test} | ({"train": train} if name in TRAINING else {})

    def features(self, name: str, inputs: dict[str, Path], folder: Path) -> dict[str, Path]:
        """Those of both sets, extracted."""
        if name not in OF_FEATURES:
            return {}
        found = {}
        for role in inputs.keys() & {"train", "test"}:
            found[f"{role}_features"] = folder / role / "manifest.json"
            spec = Features.model_validate({"model": "m", **FEATURES})
            features.run(spec, model=inputs["model"], data=inputs[role], output=found[f"{role}_features"], threads=1)
        return found

    def measured(self, name: str, how: str, inputs: dict[str, Path] | None = None, **changes: Any) -> Path:
        """Run a protocol with a folder of its own for that kind of run, and return its metrics file."""
        output = self.root / how / name / "m.json"
        inputs = inputs or self.inputs(name)
        inputs |= self.features(name, inputs, self.root / how / name / "features")
        evaluate.run(self.spec(name, **changes), output=output, threads=1, **inputs)
        return output

    def once(self, name: str) -> Path:
        if name not in self.undisturbed:
            self.undisturbed[name] = self.measured(name, "once")
        return self.undisturbed[name]


@pytest.fixture(scope="session")
def bench(chain, voc, boxes, masks, rooms, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = tmp_path_factory.mktemp("laws")
    residual = make_model(root / "residual", ResNet18(width_mult=0.125, img_size=64))
    models = {"conv": chain.model, "full": chain.full_model, "residual": residual}
    sets = {"objects": (chain.train, chain.test), "voc": voc, "boxes": boxes, "masks": masks, "rooms": rooms}
    return Bench(root, sets, models)


SHOWN = ("drawn", "examples")  # which test images the report shows depends on their order


def assert_near(one: Path, other: Path, near: float) -> None:
    """Equal up to rounding: every value, chance, learning curves, matrices, values of each class."""
    parts = ("values", "chance", "details")
    a, b = (numbers_of({part: json.loads(path.read_text())[part] for part in parts}) for path in (one, other))
    assert a.keys() == b.keys() and len(a) > 3
    for name, value in a.items():
        number = isinstance(value, int | float)
        assert (pytest.approx(value, abs=near, rel=1e-3) if number else value) == b[name], name


def numbers_of(content: Any, name: str = "") -> dict[str, Any]:
    """Path in nested content -> value."""
    if isinstance(content, dict):
        rows = [(key, value) for key, value in content.items() if key not in SHOWN]
    elif isinstance(content, list | tuple):
        rows = list(enumerate(content))
    else:
        return {name: content}
    return {place: one for key, value in rows for place, one in numbers_of(value, f"{name}.{key}").items()}


@pytest.mark.parametrize("name", CASES)
def test_metrics_are_independent_of_loader_workers(name: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    once = bench.once(name)
    monkeypatch.setenv("SSLTRANSFER_WORKERS", "2")
    assert bench.measured(name, "again").read_bytes() == once.read_bytes()


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_protocol_runs_on_a_gpu(name: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in (evaluate, features):
        monkeypatch.setattr(stage, "plan_devices", lambda threads: Devices(CUDA, 0))
    with on_gpu() as cuda:
        bench.measured(name, "gpu")
    assert not cuda.faults


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.constant])
def test_metrics_are_independent_of_test_batch_size(name: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    once = bench.once(name)
    module, constant, number = CASES[name].constant or ("", "", 0)
    monkeypatch.setattr(import_module(module), constant, number)
    assert_near(bench.measured(name, "few"), once, CASES[name].near)


@pytest.mark.parametrize("name", [name for name in TRAINED if CASES[name].passes])
def test_metrics_are_independent_of_micro_batches(name: str, bench: Bench) -> None:
    assert_near(bench.measured(name, "passes", micro_batch_size=1), bench.once(name), CASES[name].near)


@pytest.mark.parametrize("name", [name for name in TRAINED if not CASES[name].passes])
def test_metrics_depend_on_micro_batches_with_batch_norm(name: str, bench: Bench) -> None:
    """So that the test above can fail."""
    with pytest.raises(AssertionError):
        assert_near(bench.measured(name, "passes", micro_batch_size=2), bench.once(name), CASES[name].near)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.ordered])
def test_metrics_are_independent_of_test_order(name: str, bench: Bench) -> None:
    inputs = bench.inputs(name)
    index = read_index(inputs["test"])
    shuffled = bench.root / "shuffled" / name / "test.parquet"
    shuffled.parent.mkdir(parents=True)
    write_index(shuffled, index.subset(np.random.default_rng(1).permutation(len(index))))
    assert_near(bench.measured(name, "shuffled", inputs | {"test": shuffled}), bench.once(name), CASES[name].near)


def start(mode: str, plan: Path, **environment: Any) -> subprocess.Popen[str]:
    words = [sys.executable, str(DRIVER), mode, str(plan)]
    given = {name: str(value) for name, value in environment.items()}
    return subprocess.Popen(words, env={**os.environ, **given}, stdout=subprocess.PIPE, text=True)


def planned(bench: Bench, how: str, names: list[str]) -> Path:
    """What the driver does: protocols with their inputs."""
    jobs = []
    for name in names:
        inputs = bench.inputs(name)
        job = {"name": name, "spec": bench.spec(name).canonical(), "output": bench.root / how / name / "m.json"}
        if name in OF_FEATURES:
            job["features"] = Features.model_validate({"model": "m", **FEATURES}).canonical()
        jobs.append(job | {"inputs": inputs})
    plan = bench.root / f"{how}.json"
    plan.write_text(json.dumps(jobs, default=str))
    return plan


@pytest.fixture(scope="session")
def killed(bench: Bench) -> dict[str, dict[str, Any]]:
    """What became of each protocol that was killed half-way and run again."""
    process = start("kill", planned(bench, "killed", list(CASES)), SSLTRANSFER_CHECKPOINT_STEPS=1)
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 0
    return {outcome["name"]: outcome for outcome in json.loads(said.splitlines()[-1])}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_killed_run_resumes_to_same_bytes(name: str, bench: Bench, killed: dict[str, dict[str, Any]]) -> None:
    outcome = killed[name]
    assert outcome["statuses"] == [0, -signal.SIGKILL, 0]
    assert outcome["left"], "the killed run left no files in its work folder"
    assert outcome["computed"][1] < outcome["computed"][0], "what was done before the kill was done again"
    whole, broken = (bench.root / "killed" / name / how / name / "m.json" for how in ("whole", "broken"))
    assert whole.read_bytes() == broken.read_bytes()
    if name in TRAINED:
        assert whole.read_bytes() == bench.once(name).read_bytes()


@pytest.fixture(scope="session")
def pair(bench: Bench) -> None:
    """Every protocol that trains, measured by two processes together."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    plan = planned(bench, "pair", TRAINED)
    place = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    both = [start("pair", plan, RANK=rank, LOCAL_RANK=rank, **place) for rank in range(2)]
    assert [process.communicate(timeout=500) and process.returncode for process in both] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_protocols_two_processes_equal_one(name: str, bench: Bench, pair: None) -> None:
    assert_near(bench.root / "pair" / name / "m.json", bench.once(name), CASES[name].near)


@pytest.fixture(scope="session")
def devices(bench: Bench) -> None:
    """Every protocol on features, by the command that is given two devices."""
    process = start("devices", planned(bench, "devices", OF_FEATURES))
    assert process.communicate(timeout=500) and process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_FEATURES)
def test_feature_protocols_on_two_devices_equal_one(name: str, bench: Bench, devices: None) -> None:
    """Nothing is divided: the command on two devices is that on one."""
    assert (bench.root / "devices" / name / "m.json").read_bytes() == bench.once(name).read_bytes()
