"""config/evaluations_small.yaml as it stands: every protocol, by the workflow, with what the networks are worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.helpers.workflow import ROOT, measured

from ssltransfer.artifacts.metrics import Metrics
from ssltransfer.config import read_config
from ssltransfer.config.protocols import PROTOCOLS

# Some ten minutes; on one core, as other tests run beside it.
pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

CONFIG = ROOT / "config" / "evaluations_small.yaml"
# Where a few hundred images and steps hardly tell a supervised network from a random one.
CLOSE = {"cluster-alignment", "depth", "fast-rcnn", "faster-rcnn", "segmentation", "voc-classification"}


@dataclass(frozen=True)
class Run:
    """Where it ran, and evaluation -> model -> metrics."""

    folder: Path
    found: dict[str, dict[str, Metrics]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("evaluations")
    return Run(folder, measured(CONFIG, folder))


def test_evaluations_config_uses_every_protocol() -> None:
    config = read_config(CONFIG)
    assert {evaluation.protocol.name for evaluation in config.evaluations.values()} == {
        kind.model_fields["name"].default for kind in PROTOCOLS
    }


@pytest.mark.parametrize("evaluation", sorted(read_config(CONFIG).evaluations))
def test_evaluations_rank_supervised_above_chance_and_random(run: Run, evaluation: str) -> None:
    models = run.found[evaluation]
    random = next(metrics for model, metrics in models.items() if model.startswith("random-"))
    supervised = next(metrics for model, metrics in models.items() if not model.startswith("random-"))
    assert supervised.chance is not None
    assert supervised.mean() > 1.1 * supervised.chance
    if evaluation not in CLOSE:
        assert supervised.mean() > random.mean()


def test_evaluations_report_shows_drawings(run: Run) -> None:
    page = (run.folder / "results/evaluations-small/report/index.html").read_text("utf-8")
    found = [metrics for models in run.found.values() for metrics in models.values()]
    drawings = [one for metrics in found for one in metrics.details.get("drawn", ())]
    assert drawings and all(one["uri"] in page for one in drawings)
    assert len(page) < 12_000_000
