"""The loop over seeds, predictions, and the registry of protocols."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from ssltransfer.artifacts.index import read_index
from ssltransfer.config.protocols import PROTOCOLS as OPTIONS
from ssltransfer.config.protocols import Linear
from ssltransfer.data.transforms import ResizeCenterCrop
from ssltransfer.protocols.base import PROTOCOLS
from ssltransfer.protocols.harness import SeedResult, predict, run_seeds
from tests.helpers.protocol_inputs import context_of


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.__name__)
def test_registry_has_every_protocol(options: type) -> None:
    assert callable(PROTOCOLS[options])


def test_run_seeds_collects_metrics_and_keeps_details_of_first_seed(chain, tmp_path: Path) -> None:
    context = context_of(Linear(), chain.train, chain.test, tmp_path)
    context = replace(context, spec=context.spec.model_copy(update={"seeds": (3, 5)}))

    def run(seed: int, folder: Path) -> SeedResult:
        assert folder == tmp_path / f"seed-{seed}-x" and folder.is_dir()
        return SeedResult({"accuracy": seed * 10.0, "top5": 0.0}, 12.5, {"seed": seed}, {"seconds": seed})

    result = run_seeds(context, run, "-x")
    assert result.values == {"accuracy": [30, 50], "top5": [0, 0]}
    assert (result.chance, result.details, result.measured) == (12.5, {"seed": 3}, {"seconds": 3})


def test_predict_keeps_order_in_evaluation_mode(chain, tmp_path: Path) -> None:
    context, model = context_of(Linear(), chain.train, chain.test, tmp_path), nn.Dropout().train()
    parts = predict(context, model, lambda batch: batch.ids.tolist(), ResizeCenterCrop(32, 32), 7)
    assert [len(part) for part in parts] == [7, 7, 7, 7, 2]
    assert [sample for part in parts for sample in part] == list(range(len(read_index(chain.test))))
    assert not model.training


def test_with_classes_relabels_both_sets_alike(chain, tmp_path: Path) -> None:
    test = read_index(chain.test)
    names = test.classes[::-1]
    mirrored = test.with_labels(len(names) - 1 - test.labels, names)
    context, classes = context_of(Linear(), chain.train, mirrored, tmp_path).with_classes()
    assert context.train.classes == context.test.classes == classes.names
    assert context.test.labels.tolist() == classes.test.tolist() == test.labels.tolist()
