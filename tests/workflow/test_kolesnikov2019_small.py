"""config/kolesnikov2019_small.yaml as it stands, by the workflow: tasks on several networks."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain import ROOT, measured

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # some minutes


def test_the_tables_are_made(tmp_path: Path) -> None:
    """Two data sets, widths, classifiers, layers, few labels."""
    found = measured(ROOT / "config/kolesnikov2019_small.yaml", tmp_path)
    for split in ("objects", "scenes"):
        whole, patches = (
            {model for model in found[name] if not model.startswith("random-")} for name in (split, f"{split}-patches")
        )
        assert whole == {f"rotation-resnet18-w{width}" for width in (0.125, 0.25)} | {
            "rotation-caffenet",
            "exemplar-resnet18-w0.25",
            "exemplar-caffenet",
        }
        assert patches == {
            f"{task}-{trunk}"
            for task in ("relative-patch-location", "jigsaw-kolesnikov")
            for trunk in ("resnet18-w0.25", "caffenet")
        }
