"""config/evaluations_small.yaml as it stands: every protocol, by the workflow, with what the networks are worth."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from chain import ROOT, command

from ssltransfer.artefacts.metrics import Metrics, read_metrics
from ssltransfer.config import read_config
from ssltransfer.config.protocols import PROTOCOLS

# Some ten minutes; on one core, as other tests run beside it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

CONFIG = ROOT / "config" / "evaluations_small.yaml"
# Where a few hundred pictures and steps hardly tell a supervised network from a random one.
CLOSE = {"cluster-alignment", "depth", "fast-rcnn", "faster-rcnn", "segmentation", "voc-classification"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Metrics]]]:
    """The folder, and evaluation -> model -> metrics."""
    folder = tmp_path_factory.mktemp("evaluations")
    words = command("--cores", "1", config=str(CONFIG))
    run = subprocess.run(words, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert run.returncode == 0, run.stdout[-6000:]
    found: dict[str, dict[str, Metrics]] = {}
    for file in sorted((folder / "results/evaluations-small/evaluate").glob("*/*.json")):
        if not file.name.endswith(".run.json"):
            found.setdefault(file.parent.name, {})[file.stem] = read_metrics(file)
    return folder, found


def test_every_protocol_is_there(measured) -> None:  # type: ignore[no-untyped-def]
    _, found = measured
    config = read_config(CONFIG)
    assert set(found) == set(config.evaluations)
    assert {evaluation.protocol.name for evaluation in config.evaluations.values()} == {
        kind.model_fields["name"].default for kind in PROTOCOLS
    }


@pytest.mark.parametrize("evaluation", sorted(read_config(CONFIG).evaluations))
def test_a_supervised_network_beats_chance_and_a_random_one(measured, evaluation: str) -> None:  # type: ignore[no-untyped-def]
    _, found = measured
    random = next(metrics for model, metrics in found[evaluation].items() if model.startswith("random-"))
    supervised = next(metrics for model, metrics in found[evaluation].items() if not model.startswith("random-"))
    assert supervised.chance is not None
    assert supervised.mean() > 1.1 * supervised.chance
    if evaluation not in CLOSE:
        assert supervised.mean() > random.mean()


def test_the_report_shows_what_they_draw(measured) -> None:  # type: ignore[no-untyped-def]
    folder, found = measured
    page = (folder / "results/evaluations-small/report/index.html").read_text("utf-8")
    drawings = [one for models in found.values() for metrics in models.values() for one in metrics.details.get("drawn", ())]
    assert drawings and all(one["uri"] in page for one in drawings)
    assert len(page) < 12_000_000
