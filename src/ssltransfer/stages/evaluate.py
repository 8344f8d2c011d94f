"""Evaluate stage: evaluate a model under a protocol."""

import json
import shutil
from pathlib import Path

from ssltransfer.artifacts.features import FeatureStore, open_features
from ssltransfer.artifacts.files import ArtifactError, read_json
from ssltransfer.artifacts.index import Index, read_index
from ssltransfer.artifacts.metrics import DatasetRef, Metrics, write_metrics
from ssltransfer.artifacts.workdir import WorkDir
from ssltransfer.config.entities import EvaluationSpec
from ssltransfer.config.protocols import FeatureProtocol
from ssltransfer.logs import logger
from ssltransfer.protocols.base import PROTOCOLS, EvalContext
from ssltransfer.training.devices import plan_devices

MAX_OVERLAP = 0.01  # of the test set


def run(
    spec: EvaluationSpec,
    *,
    model: Path,
    test: Path,
    output: Path,
    train: Path | None = None,
    train_features: Path | None = None,
    test_features: Path | None = None,
    threads: int | None = None,
) -> None:
    """Evaluate a model and write its metrics to evaluate/{evaluation}/{model}.json.

    `train` is for protocols that train, `train_features` and `test_features` for those that read features.

    Raises:
        ArtifactError: the inputs do not belong together, or more than 1 % of the test images also occur in the
            training set.
        LayerError: the model has no such layer.
    """
    inputs = {
        "model": model,
        "train": train,
        "test": test,
        "train_features": train_features,
        "test_features": test_features,
    }
    with WorkDir("evaluate", output, spec.canonical(), inputs) as work:
        if work.is_cached():
            return
        if bool(train) != spec.protocol.needs_train:
            raise ArtifactError(
                f"{spec.protocol.name}: {'give' if spec.protocol.needs_train else 'leave out'} --train."
            )
        test_index = read_index(test)
        train_index = read_index(train) if train else test_index
        overlap = _train_test_overlap(spec, train_index, test_index) if train else 0
        features: tuple[FeatureStore, ...] = ()
        if isinstance(spec.protocol, FeatureProtocol):
            tested = _features(spec.protocol, model, test_features, test_index)
            features = (_features(spec.protocol, model, train_features, train_index) if train else tested, tested)
        devices = plan_devices(threads)
        context = EvalContext(spec, model, train_index, test_index, work.folder, devices, features)
        result = PROTOCOLS[type(spec.protocol)](context)
        if devices.rank:
            return
        metrics = Metrics(
            protocol=json.loads(spec.protocol.canonical()),
            model=output.stem,
            evaluation=output.parent.name,
            primary_metric=spec.protocol.primary_metric,
            unit=spec.protocol.unit,
            values=result.values,
            seeds=list(spec.seeds[: len(result.values[spec.protocol.primary_metric])]),
            datasets={
                role: DatasetRef(name, len(index), index.fingerprint)
                for role, name, index in (("train", spec.train, train_index), ("test", spec.test, test_index))
                if name
            },
            chance=result.chance,
            train_test_overlap=overlap,
            details=result.details,
            inputs=work.inputs,
        )
        unit = metrics.unit
        logger.info(
            f"{metrics.primary_metric} {metrics.mean():.2f} {unit} (chance {result.chance:.2f} {unit}), "
            f"{len(train_index) if train else 'no'} training and {len(test_index)} test images"
        )
        work.write_run_info(device=str(devices), **result.measured)
        write_metrics(output, metrics)
        for leftover in work.folder.iterdir():
            if leftover.is_dir():
                shutil.rmtree(leftover)
            elif leftover.name != "lock":
                leftover.unlink()
        work.mark_done()


def _train_test_overlap(spec: EvaluationSpec, train: Index, test: Index) -> int:
    if not len(train) or not len(test):
        raise ArtifactError(f"{spec.train if not len(train) else spec.test}: no readable image; fix the dataset.")
    overlap = train.num_shared_with(test)
    if overlap > MAX_OVERLAP * len(test):
        raise ArtifactError(
            f"{spec.test}: {overlap} of its {len(test)} images also occur in the training set {spec.train} "
            "(same content); name two sets that share at most 1 %."
        )
    logger.info(f"{overlap} of {len(test)} test images also occur in the training set (same content)")
    return overlap


def _features(protocol: FeatureProtocol, model: Path, manifest: Path | None, index: Index) -> FeatureStore:
    """Open the features, and verify that they are those of these images, this model and this layer."""
    if manifest is None:
        raise ArtifactError(
            f"{protocol.name} reads features: give --train-features and --test-features, made by the features stage."
        )
    store, content = open_features(manifest, index=index.fingerprint)
    weights = read_json(model).get("weights")
    if content.model != weights:
        raise ArtifactError(
            f"{manifest}: these features were made with other weights than those of {model}; run the features "
            "stage again."
        )
    wanted, has = (
        " ".join(f"{key} {spec.get(key)}" for key in ("pool", "patches"))
        for spec in (json.loads(protocol.canonical()), json.loads(content.spec.canonical()))
    )
    if protocol.layer not in (None, content.layer) or wanted != has:
        raise ArtifactError(
            f"{manifest}: features of layer {content.layer} ({has}), but the protocol needs "
            f"{protocol.layer or content.layer} ({wanted}); give the features of that layer."
        )
    return store
