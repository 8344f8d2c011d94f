"""The command line: parse, call one function, and turn what went wrong into one sentence."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config import ConfigError, read_config
from ssltransfer.errors import UserError
from ssltransfer.logs import configure_logging
from ssltransfer.training.launch import launch, rank_context, report_error, shutdown, traceback_of

# Stages whose work is divided over several devices, and for which of their specs; all others are one process.
DIVIDED: dict[str, Callable[[Any], bool]] = {
    "pretext": lambda spec: bool(spec.task.is_trainable),
    "features": lambda spec: True,
    "cluster": lambda spec: True,
    "student": lambda spec: True,
    "evaluate": lambda spec: hasattr(spec.protocol, "schedule"),
}
ON_GPU = (*DIVIDED, "label")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    given.words = sys.argv[1:] if arguments is None else arguments
    configure_logging()
    try:
        given.call(given)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        expected = isinstance(error, UserError)
        said = f"ssltransfer {given.command}: {error}" if expected else traceback_of(error)
        if not report_error(said, expected=expected):
            if not expected:
                raise
            print(said, file=sys.stderr, flush=True)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """All commands; stages load their code only when they are called."""
    parser = argparse.ArgumentParser(
        prog="ssltransfer",
        description="Move knowledge from any visual representation into any network, and measure what it is worth.",
        epilog="The whole chain: snakemake --cores all --configfile CONFIG. Each stage below is one job of it.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    stage = _stage(commands, "index", "images of a dataset -> index/{dataset}.parquet and {dataset}.skipped.tsv")
    stage.set_defaults(call=_index)

    stage = _stage(commands, "cache", "index -> its images decoded once: cache/{dataset}.parquet and packed files")
    stage.add_argument("--data", type=Path, required=True, metavar="INDEX", help="index of the images")
    stage.set_defaults(call=_run("cache", "config.formats:CacheOptions", plain=("data",)))

    stage = _stage(commands, "motion", "index of videos -> first frames and what moves: motion/{dataset}.parquet")
    stage.add_argument("--data", type=Path, required=True, metavar="INDEX", help="index of the videos")
    stage.set_defaults(call=_run("motion", "config.formats:MotionOptions", plain=("data",)))

    stage = _stage(
        commands, "pretext", "index -> a model: backbone.safetensors, backbone.json, curve.jsonl, manifest.json"
    )
    stage.add_argument("--data", type=Path, nargs="*", metavar="INDEX", help="index of the training images")
    stage.add_argument("--val", type=Path, nargs="*", metavar="INDEX", help="index of validation images")
    stage.add_argument("--task-data", type=Path, nargs="*", metavar="INDEX", help="indexes of several tasks' own data")
    stage.add_argument("--model", type=Path, nargs="*", metavar="MANIFEST", help="the pretext that a snapshot is of")
    stage.set_defaults(
        call=_run("pretext", "config.entities:Pretext", one=("data", "val", "model"), many=("task_data",))
    )

    stage = _stage(commands, "features", "model and index -> a feature store (Zarr) and manifest.json")
    stage.add_argument("--model", type=Path, required=True, metavar="MANIFEST", help="manifest of the model")
    stage.add_argument("--data", type=Path, required=True, metavar="INDEX", help="index of the images")
    stage.add_argument("--shard", metavar="3/8", help="only this shard of the work; --output is a file of its own then")
    stage.set_defaults(call=_run("features", "config.entities:Features", plain=("model", "data", "shard")))

    stage = _stage(commands, "cluster", "features -> centroids, curve.jsonl, manifest.json")
    stage.add_argument("--features", type=Path, required=True, metavar="MANIFEST", help="manifest of the features")
    stage.set_defaults(call=_run("cluster", "config.entities:Cluster", plain=("features",)))

    stage = _stage(commands, "label", "clustering and features or model -> label/{cluster}/{dataset}.parquet")
    stage.add_argument("--cluster", type=Path, required=True, metavar="MANIFEST", help="manifest of the clustering")
    stage.add_argument("--features", type=Path, nargs="*", metavar="MANIFEST", help="the dataset's features")
    stage.add_argument("--model", type=Path, nargs="*", metavar="MANIFEST", help="or the model, to compute them")
    stage.add_argument("--index", type=Path, required=True, metavar="INDEX", help="the dataset's index")
    stage.set_defaults(call=_run("label", None, plain=("cluster", "index"), one=("features", "model")))

    stage = _stage(commands, "student", "index (and labels, or a teacher) -> a model, as pretext")
    stage.add_argument("--data", type=Path, required=True, metavar="INDEX", help="index of the training images")
    stage.add_argument("--labels", type=Path, nargs="*", metavar="LABELS", help="pseudo-labels of those images")
    stage.add_argument("--val", type=Path, nargs="*", metavar="INDEX", help="index of validation images")
    stage.add_argument("--val-labels", type=Path, nargs="*", metavar="LABELS", help="pseudo-labels of those")
    stage.add_argument("--teacher", type=Path, nargs="*", metavar="MANIFEST", help="model that is asked meanwhile")
    stage.add_argument("--features", type=Path, nargs="*", metavar="MANIFEST", help="or what it said of the images")
    stage.add_argument("--val-features", type=Path, nargs="*", metavar="MANIFEST", help="the same of validation images")
    learned = ("labels", "val", "val_labels", "teacher", "features", "val_features")
    stage.set_defaults(call=_run("student", "config.entities:Student", plain=("data",), one=learned))

    stage = _stage(commands, "evaluate", "model, train and test -> metrics (one JSON form for all protocols)")
    stage.add_argument("--model", type=Path, required=True, metavar="MANIFEST", help="manifest of the model")
    stage.add_argument("--train", type=Path, nargs="*", metavar="INDEX", help="index of the training images")
    stage.add_argument("--test", type=Path, required=True, metavar="INDEX", help="index of the test images")
    stage.add_argument("--train-features", type=Path, nargs="*", metavar="MANIFEST", help="features of the former")
    stage.add_argument("--test-features", type=Path, nargs="*", metavar="MANIFEST", help="features of the latter")
    stage.set_defaults(
        call=_run(
            "evaluate",
            "config.entities:EvaluationSpec",
            plain=("model", "test"),
            one=("train", "train_features", "test_features"),
        )
    )

    stage = _stage(commands, "report", "everything that was made -> report/index.html, one file")
    kinds = ("indexes", "models", "features", "clusters", "labels", "metrics")
    for kind in kinds:
        stage.add_argument(f"--{kind}", type=Path, nargs="*", metavar="FILE", help=f"the {kind} to show")
    stage.set_defaults(call=_run("report", "config.entities:Report", many=kinds))

    _add_utility_commands(commands)
    return parser


def _stage(commands: Any, name: str, does: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=does, description=does)
    parser.add_argument("--spec", required=True, help="what is made, as one line of JSON (Snakemake prints it)")
    parser.add_argument("--output", type=Path, required=True, help="what Snakemake waits for; written last")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument("--devices", type=int, default=1, help="GPUs; without any, processes (default: 1)")
    return parser


def _run(
    stage: str,
    spec: str | None,
    *,
    plain: tuple[str, ...] = (),
    one: tuple[str, ...] = (),
    many: tuple[str, ...] = (),
) -> Callable[..., None]:
    """A call of stages.<stage>.run with its spec parsed and its paths as keywords.

    `one` names arguments that a rule may leave empty: one path or none. An empty list arrives as an empty word.
    """

    def call(given: argparse.Namespace) -> None:
        parsed: Any = given.spec
        if spec:
            parsed = _named(spec).parse(given.spec)
        paths = {key: getattr(given, key) for key in plain}
        listed = {key: [path for path in getattr(given, key) or [] if path != Path()] for key in (*one, *many)}
        paths |= {key: next(iter(listed[key]), None) for key in one}
        paths |= {key: listed[key] for key in many}
        divided = stage in DIVIDED and DIVIDED[stage](parsed)
        rank = launch(given.words, given.devices, distributed=divided, gpu=stage in ON_GPU)
        if rank and not divided:
            return
        with rank_context(rank):
            run = import_module(f"ssltransfer.stages.{stage}").run
            run(spec=parsed, output=given.output, threads=given.threads, **paths)
            if divided:
                shutdown()

    return call


def _named(where: str) -> Any:
    """What `module:name` says, within the package."""
    module, name = where.split(":")
    return getattr(import_module(f"ssltransfer.{module}"), name)


def _index(given: argparse.Namespace) -> None:
    from ssltransfer.config.formats import AnyDataset
    from ssltransfer.stages.index import run

    try:
        spec: Any = TypeAdapter(AnyDataset).validate_json(given.spec)
    except ValidationError as error:
        raise ConfigError(f"--spec is no dataset: {error.errors()[0]['msg']}.") from None
    if launch(given.words, given.devices, distributed=False, gpu=False) == 0:
        run(spec, output=given.output, threads=given.threads)


def _add_utility_commands(commands: Any) -> None:
    """Commands for finding one's way and for keeping house."""
    parser = commands.add_parser("list", help="what there is: formats, backbones, tasks, methods, protocols")
    parser.add_argument("what", choices=("formats", "backbones", "tasks", "methods", "protocols"))
    parser.set_defaults(call=lambda given: import_module("ssltransfer.registry_list").print_list(given.what))

    parser = commands.add_parser(
        "estimate", help="a configuration's named things, what they hang on, what they will cost"
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--tflops", type=float, default=30.0, help="what one device sustains (default: 30)")
    parser.add_argument("--cores", type=int, help="CPU cores that decode for a device (default: 16)")
    parser.add_argument(
        "--benchmark-results", type=Path, help="results.json of the benchmarks: paces instead of assumptions"
    )
    parser.set_defaults(call=_estimate)

    parser = commands.add_parser(
        "export", help="a model for use without this package, with a card that says what it is"
    )
    parser.add_argument("model", type=Path, metavar="MANIFEST", help="manifest of the model")
    parser.add_argument("output", type=Path, help="NAME.pth, .safetensors, .pt2 (torch.export) or .onnx")
    parser.add_argument("--layer", help="of .pt2 and .onnx (default: the last)")
    parser.add_argument("--metrics", type=Path, nargs="*", default=[], metavar="FILE", help="evaluations, for the card")
    parser.set_defaults(call=_export)

    parser = commands.add_parser("clean", help="remove work directories that no present result was made in")
    parser.add_argument("results", type=Path)
    parser.set_defaults(call=_clean)


def _estimate(given: argparse.Namespace) -> None:
    from ssltransfer.planning import Machine, measured, print_estimate

    machine = (
        measured(given.benchmark_results, given.cores)
        if given.benchmark_results
        else Machine(given.tflops, given.cores or 16)
    )
    print_estimate(read_config(given.config), machine)


def _export(given: argparse.Namespace) -> None:
    from ssltransfer.models.export import export

    print(export(given.model, given.output, layer=given.layer, metrics=given.metrics))


def _clean(given: argparse.Namespace) -> None:
    from ssltransfer.artifacts.workdir import clean

    if not given.results.is_dir():
        raise ArtifactError(f"{given.results}: there is no such folder of results.")
    removed = clean(given.results)
    for folder in removed:
        print(f"removed {folder}")
    print(f"{len(removed)} old work directories removed")


if __name__ == "__main__":
    sys.exit(main())
