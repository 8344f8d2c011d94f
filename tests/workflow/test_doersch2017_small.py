"""config/doersch2017_small.yaml as it stands, by the workflow: several tasks on one backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers.workflow import ROOT, measured

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]  # some minutes


def test_doersch2017_small_writes_tables(tmp_path: Path) -> None:
    """Alone and together, mixes of units, quality against compute."""
    frozen = measured(ROOT / "config/doersch2017_small.yaml", tmp_path)["frozen"]
    assert frozen.keys() >= {"rp", "col", "together", "together@20", "together@40", "lasso", "at-once"}
    assert all(metrics.chance is not None and metrics.mean() > metrics.chance for metrics in frozen.values())
