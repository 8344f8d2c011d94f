"""config/kolesnikov2019_small.yaml as it stands, by the workflow: tasks on several networks."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers.workflow import ROOT, measured

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]  # some minutes


def test_kolesnikov2019_small_writes_tables(tmp_path: Path) -> None:
    """Two data sets, widths, classifiers, layers, few labels."""
    found = measured(ROOT / "config/kolesnikov2019_small.yaml", tmp_path)
    for split in ("objects", "scenes"):
        whole, patches = (
            {model for model in found[name] if not model.startswith("random-")} for name in (split, f"{split}-patches")
        )
        assert {model.split("-")[0] for model in whole} == {"rotation", "exemplar"} and len(whole) == 4
        assert patches == {"relative-patch-location-caffenet", "jigsaw-kolesnikov-caffenet"}
        for metrics in (
            found[name][model] for name, models in ((split, whole), (f"{split}-patches", patches)) for model in models
        ):
            assert metrics.chance is not None and metrics.mean() > metrics.chance
