"""The command line: parse arguments, call one function, and print user errors as one sentence."""

import argparse
import inspect
import json
import os
import select
import shlex
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ssltransfer import __version__, stages
from ssltransfer.completion import completion_script
from ssltransfer.config import Config, ConfigError, only_table, read_config
from ssltransfer.config.backbones import BACKBONES
from ssltransfer.config.base import suggest
from ssltransfer.config.entities import Cluster, EvaluationSpec, Features, Pretext, Report, Student
from ssltransfer.config.formats import FORMATS, AnyDataset, CacheOptions, CurateOptions, MotionOptions
from ssltransfer.config.methods import METHODS
from ssltransfer.config.overrides import with_options
from ssltransfer.config.protocols import PROTOCOLS, TrainedProtocol
from ssltransfer.config.references import references
from ssltransfer.config.tasks import TASKS
from ssltransfer.errors import UserError, advice_on
from ssltransfer.logs import configure_logging
from ssltransfer.pipeline import FOLDER, copy_files, find_config, snakemake_command
from ssltransfer.pipeline.presets import STUDENTS, TEACHERS, VALUES, presets, write_preset
from ssltransfer.training.launch import launch, rank_context, report_error, shutdown, traceback_of


@dataclass(frozen=True)
class Argument:
    """An input of a stage, such as `--val-features`.

    Attributes:
        number: of paths. Snakemake passes the empty list of an optional input as an empty word.
    """

    flag: str
    metavar: Literal["INDEX", "MANIFEST", "LABELS", "FILE"]
    help: str
    number: Literal["one", "optional", "many"] = "one"

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Declare the argument."""
        options: dict[str, Any] = {"required": True} if self.number == "one" else {"nargs": "*", "default": []}
        parser.add_argument(self.flag, type=Path, metavar=self.metavar, help=self.help, **options)

    def value(self, arguments: argparse.Namespace) -> tuple[str, Any]:
        """The keyword of the stage's `run` and its value: a path, None or a list of paths."""
        name = self.flag.removeprefix("--").replace("-", "_")
        given = getattr(arguments, name)
        if self.number == "one":
            return name, given
        paths = [path for path in given if path != Path()]
        return name, paths if self.number == "many" else next(iter(paths), None)


def _parse_dataset(text: str) -> Any:
    try:
        return TypeAdapter(AnyDataset).validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"--spec is not a dataset: {error.errors()[0]['msg']}.") from None


def _report_partial(config: Path) -> None:
    from ssltransfer.planning.partial_report import write_partial_report

    write_partial_report(read_config(find_config(config)))


@dataclass(frozen=True)
class Stage:
    """A command that runs a stage of the pipeline.

    Attributes:
        load: imports the stage's `run`.
        parse: reads --spec.
        gpu: whether it uses GPUs.
        distributed: whether several devices share the work of this spec; otherwise there is one process.
        partial: runs the stage with a configuration instead of a spec, and with the inputs that exist.
    """

    name: str
    load: Callable[[], Callable[..., None]]
    help: str
    parse: Callable[[str], Any]
    arguments: tuple[Argument, ...] = ()
    gpu: bool = False
    distributed: Callable[[Any], bool] = lambda spec: False
    partial: Callable[[Path], None] | None = None

    def add_to(self, commands: Any) -> argparse.ArgumentParser:
        """Declare the command."""
        parser: argparse.ArgumentParser = commands.add_parser(self.name, help=self.help, description=self.help)
        required = self.partial is None
        parser.add_argument("--spec", help="options as one line of JSON (printed by Snakemake)")
        parser.set_defaults(options=[])
        if self.parse is not str:  # the label stage takes the text of a clustering
            parser.add_argument(
                "--set",
                action="append",
                metavar="KEY=VALUE",
                dest="options",
                help="an option, such as k=100 or schedule.lr=0.1, instead of --spec or over it; may be repeated",
            )
        parser.add_argument("--output", type=Path, required=required, help="the output file, written last")
        if self.partial:
            parser.add_argument("--partial", type=Path, metavar="CONFIG", help="instead: the results of a run so far")
        parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
        parser.add_argument("--devices", type=int, default=1, help="GPUs, or processes without GPUs (default: 1)")
        parser.add_argument(
            "--nodes", type=int, default=1, help="nodes of a Slurm job that share the devices (default: 1)"
        )
        for argument in self.arguments:
            argument.add_to(parser)
        parser.set_defaults(call=self.run)
        return parser

    def run(self, arguments: argparse.Namespace) -> None:
        """Run the stage, in as many processes as there are devices."""
        if self.partial and arguments.partial:
            self.partial(arguments.partial)
            return
        given = with_options(arguments.spec, arguments.options)
        if given is None or arguments.output is None:
            raise UserError(f"give --spec or --set, and --output{', or --partial CONFIG' if self.partial else ''}.")
        spec = self.parse(given)
        inputs = dict(argument.value(arguments) for argument in self.arguments)
        if "shard" in arguments:
            inputs["shard"] = arguments.shard
        distributed = self.distributed(spec)
        rank = launch(
            arguments.words,
            arguments.devices,
            nodes=arguments.nodes,
            threads=arguments.threads,
            distributed=distributed,
            gpu=self.gpu,
        )
        if rank and not distributed:
            return
        with rank_context(rank):
            self.load()(spec=spec, output=arguments.output, threads=arguments.threads, **inputs)
            if distributed:
                shutdown()


IMAGES = Argument("--data", "INDEX", "index of the images")
MODEL = Argument("--model", "MANIFEST", "manifest of the model")
INIT = Argument("--init", "MANIFEST", "model whose weights the training starts from", "optional")
VAL = Argument("--val", "INDEX", "index of the validation images", "optional")
REPORTED = ("indexes", "models", "features", "clusters", "labels", "metrics")

STAGES = (
    Stage(
        "index",
        lambda: stages.index.run,
        "images of a dataset -> index/{dataset}.parquet and {dataset}.skipped.tsv",
        _parse_dataset,
    ),
    Stage(
        "cache",
        lambda: stages.cache.run,
        "index -> decoded images: cache/{dataset}.parquet and packed files",
        CacheOptions.parse,
        (IMAGES,),
    ),
    Stage(
        "motion",
        lambda: stages.motion.run,
        "index of videos -> first frames and motion masks: motion/{dataset}.parquet",
        MotionOptions.parse,
        (Argument("--data", "INDEX", "index of the videos"),),
    ),
    Stage(
        "pretext",
        lambda: stages.pretext.run,
        "index -> a model: backbone.safetensors, backbone.json, curve.jsonl, manifest.json",
        Pretext.parse,
        (
            Argument("--data", "INDEX", "index of the training images", "optional"),
            VAL,
            Argument("--task-data", "INDEX", "indexes of further datasets of a multi-task pretext", "many"),
            Argument("--model", "MANIFEST", "pretext that a snapshot belongs to", "optional"),
            INIT,
        ),
        gpu=True,
        distributed=lambda spec: bool(spec.task.is_trainable),
    ),
    Stage(
        "features",
        lambda: stages.features.run,
        "model and index -> a feature store (Zarr) and manifest.json",
        Features.parse,
        (Argument("--model", "MANIFEST", "manifest of the model; not for features of a file", "optional"), IMAGES),
        gpu=True,
        distributed=lambda spec: True,
    ),
    Stage(
        "cluster",
        lambda: stages.cluster.run,
        "features -> centroids, curve.jsonl, manifest.json",
        Cluster.parse,
        (Argument("--features", "MANIFEST", "manifest of the features"),),
        gpu=True,
        distributed=lambda spec: True,
    ),
    Stage(
        "label",
        lambda: stages.label.run,
        "clustering, and features or a model -> label/{cluster}/{dataset}.parquet",
        str,
        (
            Argument("--cluster", "MANIFEST", "manifest of the clustering"),
            Argument("--features", "MANIFEST", "features of the dataset", "optional"),
            Argument("--model", "MANIFEST", "or the model that computes them", "optional"),
            Argument("--index", "INDEX", "index of the dataset"),
        ),
        gpu=True,
    ),
    Stage(
        "curate",
        lambda: stages.curate.run,
        "labels of a clustering -> a balanced dataset: curate/{dataset}.parquet, {dataset}.txt",
        CurateOptions.parse,
        (
            Argument("--data", "INDEX", "index of the images that were clustered"),
            Argument("--cluster", "MANIFEST", "manifest of the clustering"),
            Argument("--labels", "LABELS", "labels of the images under it"),
            Argument("--features", "MANIFEST", "features of the images, to find near duplicates", "optional"),
        ),
        gpu=True,
    ),
    Stage(
        "student",
        lambda: stages.student.run,
        "index, and labels or a teacher -> a model with the files of `pretext`",
        Student.parse,
        (
            Argument("--data", "INDEX", "index of the training images"),
            Argument("--labels", "LABELS", "pseudo-labels of the training images", "optional"),
            VAL,
            Argument("--val-labels", "LABELS", "pseudo-labels of the validation images", "optional"),
            Argument("--teacher", "MANIFEST", "teacher model", "optional"),
            Argument("--further-teachers", "MANIFEST", "more teachers, in the order of the spec", "many"),
            Argument("--features", "MANIFEST", "or its precomputed features of the training images", "optional"),
            Argument("--val-features", "MANIFEST", "and of the validation images", "optional"),
            INIT,
        ),
        gpu=True,
        distributed=lambda spec: True,
    ),
    Stage(
        "evaluate",
        lambda: stages.evaluate.run,
        "model, training and test images -> metrics (one JSON format for all protocols)",
        EvaluationSpec.parse,
        (
            MODEL,
            Argument("--train", "INDEX", "index of the training images", "optional"),
            Argument("--test", "INDEX", "index of the test images"),
            Argument("--train-features", "MANIFEST", "features of the training images", "optional"),
            Argument("--test-features", "MANIFEST", "features of the test images", "optional"),
        ),
        gpu=True,
        distributed=lambda spec: isinstance(spec.protocol, TrainedProtocol),
    ),
    Stage(
        "report",
        lambda: stages.report.run,
        "all results -> report/index.html, one file",
        Report.parse,
        tuple(Argument(f"--{kind}", "FILE", f"{kind} in the report", "many") for kind in REPORTED),
        partial=_report_partial,
    ),
)

# What `ssltransfer list` shows, besides the references and the presets.
KINDS: dict[str, tuple[Any, ...]] = {
    "formats": FORMATS,
    "backbones": BACKBONES,
    "tasks": TASKS,
    "methods": METHODS,
    "protocols": PROTOCOLS,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, 1 after an error or if `check` finds something missing, 130 after an interrupt, 141 if the
        reader of the output ended (`| head`).
    """
    try:
        code = _run(arguments)
        print(end="", flush=True)
    except (BrokenPipeError, SystemExit):
        if not _output_is_broken():
            raise
        # The interpreter writes the rest of its buffer when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    return code


def _output_is_broken() -> bool:
    """Whether the standard output is a pipe without a reader."""
    if sys.__stdout__ is None:
        return False
    poll = select.poll()
    poll.register(sys.__stdout__, 0)
    # Linux reports an error, macOS a hang-up.
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _run(arguments: list[str] | None) -> int:
    given = build_parser().parse_args(arguments)
    given.words = sys.argv[1:] if arguments is None else arguments
    configure_logging()
    try:
        if sys.getfilesystemencoding() != "utf-8":
            raise UserError(
                f"the locale's encoding is {sys.getfilesystemencoding()}, in which names of images would be garbled; "
                "set PYTHONUTF8=1."
            )
        return int(given.call(given) or 0)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        advice = advice_on(error)
        expected = advice is not None
        message = f"ssltransfer {given.command}: {advice}" if expected else traceback_of(error)
        if not report_error(message, expected=expected):
            if not expected:
                raise
            print(message, file=sys.stderr, flush=True)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """All commands. The code of a stage is imported when it runs."""
    parser = argparse.ArgumentParser(
        prog="ssltransfer",
        description="Transfer the knowledge of a visual representation into another network, and evaluate both.",
        epilog="The whole pipeline: ssltransfer run CONFIG. Each stage is one job of it.",
    )
    parser.add_argument("--version", action="version", version=f"ssltransfer {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {stage.name: stage.add_to(commands) for stage in STAGES}
    parsers["features"].add_argument(
        "--shard", metavar="3/8", help="compute only this shard of the store; --output is a file of its own"
    )
    _add_utility_commands(commands)
    return parser


def _add_utility_commands(commands: Any) -> None:
    kinds = (*KINDS, "references", "presets")
    parser = commands.add_parser("list", help=f"available {', '.join(kinds)}")
    parser.add_argument("what", choices=kinds)
    parser.set_defaults(call=_list)

    parser = commands.add_parser("describe", help="all options of a format, backbone, task, method or protocol")
    parser.add_argument("name", help="as printed by `ssltransfer list`")
    parser.set_defaults(call=_describe)

    parser = commands.add_parser("schema", help="the JSON Schema of configuration files, for editors")
    parser.set_defaults(call=_schema)

    parser = commands.add_parser("run", help="run the whole pipeline of a configuration with Snakemake")
    parser.add_argument("config", type=Path, help="a configuration file, or the name of a shipped one: demo.yaml")
    parser.add_argument("snakemake", nargs=argparse.REMAINDER, help="arguments of Snakemake, such as -n for a dry run")
    _add_table(parser)
    parser.set_defaults(call=_run_pipeline)

    parser = commands.add_parser("init", help="write a configuration from a preset, or copy all shipped ones")
    parser.add_argument("preset", nargs="?", help="as printed by `ssltransfer list presets`; default: copy all files")
    parser.add_argument("--images", metavar="FOLDER", help="images without labels, or whose labels are not used")
    parser.add_argument("--labeled", metavar="FOLDER", help="images in a folder per class")
    parser.add_argument(
        "--teacher",
        metavar="NAME",
        help=f"{', '.join(TEACHERS)}, timm/MODEL, torchvision/MODEL or a file of weights",
    )
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="the network to evaluate: a file, or a name as of --teacher"
    )
    parser.add_argument("--backbone", metavar="NAME", default="", help="architecture of a file of weights")
    parser.add_argument(
        "--student",
        metavar="NAME",
        help=f"resnet18, {', '.join(STUDENTS)}, another backbone, timm/... or torchvision/...",
    )
    parser.add_argument("-k", "--k", metavar="N", help="number of clusters")
    parser.add_argument("--output", type=Path, help="the new file (default: PRESET.yaml), or the folder of the copies")
    parser.set_defaults(call=_init)

    parser = commands.add_parser("check", help="whether the files, disk, memory and GPUs for a configuration exist")
    parser.add_argument("config", type=Path)
    _add_table(parser)
    parser.set_defaults(call=_check)

    parser = commands.add_parser("estimate", help="jobs of a configuration, with estimated hours, disk and memory")
    parser.add_argument("config", type=Path)
    parser.add_argument(
        "--tflops", type=float, help="sustained TFLOP/s of one device (default: measured here in two seconds)"
    )
    parser.add_argument(
        "--cores",
        type=int,
        help="CPU cores that decode images for one device (default: this machine's; with --tflops 16)",
    )
    parser.add_argument(
        "--assume", action="store_true", help="do not measure: 30 TFLOP/s, or a usual CPU without a GPU"
    )
    parser.add_argument("--benchmark-results", type=Path, help="results.json of the benchmarks: measured rates")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="write a Slurm profile with the memory and runtime of each rule"
    )
    parser.add_argument(
        "--local", action="store_true", help="with --profile: for this machine, whose memory limits the jobs at a time"
    )
    parser.add_argument("--overwrite", action="store_true", help="with --profile: replace an existing one")
    _add_table(parser)
    parser.set_defaults(call=_estimate)

    parser = commands.add_parser("status", help="finished results, and the last line of each running job")
    parser.add_argument("results", type=Path)
    parser.set_defaults(call=_status)

    parser = commands.add_parser("export", help="export a model for use without this package, with a model card")
    parser.add_argument("model", type=Path, metavar="MANIFEST", help="manifest of the model")
    parser.add_argument("output", type=Path, help="NAME.pth, .safetensors, .pt2 (torch.export) or .onnx")
    parser.add_argument("--layer", help="output layer of .pt2 and .onnx (default: the last)")
    parser.add_argument("--metrics", type=Path, nargs="*", default=[], metavar="FILE", help="metrics for the card")
    parser.set_defaults(call=_export)

    parser = commands.add_parser("embed", help="features of the images of a folder -> .parquet, .npz or .zarr")
    parser.add_argument("model", type=Path, metavar="MANIFEST", help="manifest of the model, or its folder")
    parser.add_argument("images", type=Path, help="folder of images, or one image")
    parser.add_argument(
        "output", type=Path, help="NAME.parquet (columns path, vector), NAME.npz (paths, vectors) or NAME.zarr"
    )
    parser.add_argument("--layer", help="default: the last one")
    parser.add_argument("--pool", help="pooling of a map, such as max=4 (default: avg=1, its mean)")
    parser.set_defaults(call=_embed)

    parser = commands.add_parser("assign", help="the cluster of each image of a folder -> .csv")
    parser.add_argument("cluster", type=Path, metavar="MANIFEST", help="manifest of the clustering, or its folder")
    parser.add_argument("images", type=Path, help="folder of images, or one image")
    parser.add_argument("output", type=Path, help="a CSV file with the columns path, cluster and distance")
    parser.add_argument("--model", type=Path, metavar="MANIFEST", help="the model (default: that in the same results)")
    parser.set_defaults(call=_assign)

    parser = commands.add_parser("search", help="the images most similar to an image, among those that were embedded")
    parser.add_argument("embeddings", type=Path, help="a file of `ssltransfer embed`")
    parser.add_argument("image", type=Path)
    parser.add_argument("-k", type=int, default=10, help="number of images (default: 10)")
    parser.add_argument("--html", type=Path, help="write the images as a page")
    parser.set_defaults(call=_search)

    parser = commands.add_parser("look", help="a page of a model's maps, of features or of all clusters")
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        metavar="RESULT",
        help="manifest of a model, features or a clustering, or its folder; labels; or a file of `ssltransfer embed`",
    )
    parser.add_argument("--images", type=Path, help="show a model on this folder (default: its training images)")
    parser.add_argument("--html", type=Path, help="the page (default: in the folder of the report)")
    parser.add_argument(
        "--projection", choices=("pca", "tsne", "umap"), default="tsne", help="of the map of features (default: tsne)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the images drawn from a large dataset (default: 0)")
    parser.set_defaults(call=_look)
    parser = commands.add_parser("completion", help="a script that completes commands and names in your shell")
    parser.add_argument("shell", choices=("bash", "zsh"))
    parser.set_defaults(call=_completion)

    parser = commands.add_parser("clean", help="remove work directories of outdated results")
    parser.add_argument("results", type=Path)
    parser.set_defaults(call=_clean)


def listed(kind: str) -> list[tuple[str, str, str]]:
    """(name, description, source) of each format, backbone, task, method, protocol, table of a paper or preset."""
    if kind == "presets":
        return [(name, line, "") for name, line in presets().items()]
    if kind == "references":
        return [(name, reference.title, reference.source) for name, reference in references().items()]
    rows = []
    for entry in KINDS[kind]:
        tag = "format" if kind == "formats" else "name"
        first = (inspect.getdoc(entry) or "").splitlines()[0]
        rows.append((str(entry.model_fields[tag].default), first, entry.reference))
    return rows


def _list(arguments: argparse.Namespace) -> None:
    rows = listed(arguments.what)
    width = max(len(name) for name, _, _ in rows)
    columns = max(60, shutil.get_terminal_size((110, 24)).columns)
    for name, line, source in rows:
        text = f"{line} [{source}]" if source else line
        print(textwrap.fill(text, columns, initial_indent=f"{name:<{width}}  ", subsequent_indent=" " * (width + 2)))


def _describe(arguments: argparse.Namespace) -> None:
    found = [
        (kind, entry)
        for kind, entries in KINDS.items()
        for entry in entries
        if arguments.name == entry.model_fields["format" if kind == "formats" else "name"].default
    ]
    if not found:
        known = [name for kind in KINDS for name, _, _ in listed(kind)]
        raise UserError(f"nothing is called {arguments.name!r}{suggest(arguments.name, known)}")
    columns = max(60, shutil.get_terminal_size((110, 24)).columns)
    for kind, entry in found:
        reference = f"\nSource: {entry.reference}" if entry.reference else ""
        print(f"{arguments.name} ({kind.removesuffix('s')})\n{inspect.getdoc(entry)}{reference}\n")
        for key, option in list(entry.model_fields.items())[1:]:
            default = "required" if option.is_required() else f"default {shown_default(option)}"
            text = f"{key}: {default}. {option.description or ''}".rstrip()
            print(textwrap.fill(text, columns, initial_indent="  ", subsequent_indent="      "))


def shown_default(option: FieldInfo) -> str:
    """The default of an option, as in YAML."""
    value = option.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return value.model_dump_json(exclude_none=True)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _schema(arguments: argparse.Namespace) -> None:
    from ssltransfer.config.json_schema import json_schema

    print(json.dumps(json_schema(), indent=1, ensure_ascii=False))


def _completion(arguments: argparse.Namespace) -> None:
    described = [name for kind in KINDS for name, _, _ in listed(kind)]
    print(completion_script(build_parser(), arguments.shell, {"describe": described, "init": list(presets())}), end="")


def _status(arguments: argparse.Namespace) -> None:
    from ssltransfer.planning.status import finished, running

    for stage, count in finished(arguments.results).items():
        print(f"{stage:<9}{count:>6} finished")
    jobs = running(arguments.results)
    for job in jobs:
        print(f"running: {job.job}, {job.seconds:.0f} s ago: {job.line}")
    if not jobs:
        print("no job has written to its log in the last minute and a half")


def _add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--table", metavar="TITLE", help="only what one table of the report needs: its title, or words of it"
    )


def _config(arguments: argparse.Namespace) -> Config:
    """The configuration, or what one table needs of it."""
    config = read_config(find_config(arguments.config))
    return only_table(config, arguments.table) if arguments.table else config


def _run_pipeline(arguments: argparse.Namespace) -> None:
    # The option may also follow the configuration, among the arguments of Snakemake.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_table(parser)
    arguments, words = parser.parse_known_args(arguments.snakemake, arguments)
    command = snakemake_command(arguments.config, words, _config(arguments).table if arguments.table else None)
    sys.stdout.flush()
    os.execv(command[0], command)


def _init(arguments: argparse.Namespace) -> None:
    options = {key: value for key in VALUES if (value := getattr(arguments, key)) is not None}
    if arguments.preset is None:
        if options:
            raise UserError(f"name a preset before the options: {', '.join(presets())}.")
        for folder in copy_files(arguments.output or Path()):
            print(folder)
        return
    output = arguments.output or Path(f"{arguments.preset}.yaml")
    write_preset(arguments.preset, output, options, arguments.backbone)
    print(
        f"{output}: written. Next:\n"
        f"  ssltransfer check {output}   # folders, weights, disk and GPUs\n"
        f"  ssltransfer run {output}"
    )


def _check(arguments: argparse.Namespace) -> int:
    from ssltransfer.planning.readiness import findings

    missing = False
    for kind, text in findings(_config(arguments)):
        print(f"{kind:<8} {text.rstrip('.')}", flush=True)
        missing |= kind == "missing"
    return int(missing)


def _estimate(arguments: argparse.Namespace) -> None:
    from ssltransfer.planning.machine import Machine, measured, this_machine
    from ssltransfer.planning.measure import measure_machine
    from ssltransfer.planning.profile import write_profile
    from ssltransfer.planning.summary import print_estimate

    if (arguments.local or arguments.overwrite) and not arguments.profile:
        raise UserError("--local and --overwrite need --profile DIR.")
    config, cores = _config(arguments), arguments.cores
    if arguments.benchmark_results:
        machine = measured(arguments.benchmark_results, cores)
    elif arguments.tflops:
        machine = Machine(arguments.tflops, cores or Machine.cores)
    elif arguments.assume:
        machine = this_machine(cores)
    else:
        machine = measure_machine(cores)
    costs = print_estimate(config, machine)
    if arguments.profile:
        base = FOLDER / "profiles" / ("default" if arguments.local else "slurm") / "config.yaml"
        print(write_profile(costs, base, arguments.profile, local=arguments.local, overwrite=arguments.overwrite))
        words = shlex.join(map(str, (arguments.config, "--workflow-profile", arguments.profile)))
        print(f"Next: ssltransfer run {words}")


def _export(arguments: argparse.Namespace) -> None:
    from ssltransfer.models.export import export

    print(export(arguments.model, arguments.output, layer=arguments.layer, metrics=arguments.metrics))


def _embed(arguments: argparse.Namespace) -> None:
    from ssltransfer.api import load_model

    how, _, size = (arguments.pool or "").partition("=")
    if arguments.pool and not size.isdecimal():
        raise UserError(f"--pool {arguments.pool}: give max=4, avg=1 or max_dim=9000.")
    pool = {how: int(size)} if arguments.pool else None
    found = load_model(arguments.model).embed(arguments.images, layer=arguments.layer, pool=pool)
    found.save(arguments.output)
    _print_skipped(found.skipped)
    print(
        f"{arguments.output}: {len(found.paths)} images, {found.vectors.shape[1]} dimensions of {found.about['layer']}"
    )


def _assign(arguments: argparse.Namespace) -> None:
    from ssltransfer.api import assign

    found = assign(arguments.cluster, arguments.images, model=arguments.model)
    found.save(arguments.output)
    _print_skipped(found.skipped)
    print(f"{arguments.output}: {len(found.paths)} images in {len(set(found.clusters.tolist()))} clusters")


def _search(arguments: argparse.Namespace) -> None:
    from ssltransfer.api import Embeddings, search, write_strip

    embeddings = Embeddings.load(arguments.embeddings)
    found = search(embeddings, arguments.image, k=arguments.k)
    for path, similarity in found:
        print(f"{similarity:.4f}  {path}")
    if arguments.html:
        write_strip(arguments.html, arguments.image, found, embeddings.root)


def _look(arguments: argparse.Namespace) -> None:
    from ssltransfer.looking.pages import look

    if arguments.html and len(arguments.results) > 1:
        raise UserError(f"--html {arguments.html}: one page for {len(arguments.results)} results; name one result.")
    for result in arguments.results:
        page = look(
            result, arguments.html, images=arguments.images, projection=arguments.projection, seed=arguments.seed
        )
        print(f"{page}: {page.stat().st_size / 1e6:.1f} MB")


def _print_skipped(skipped: dict[str, str]) -> None:
    for path, reason in skipped.items():
        print(f"skipped {path}: {reason}", file=sys.stderr)


def _clean(arguments: argparse.Namespace) -> None:
    from ssltransfer.artifacts.workdir import clean

    if not arguments.results.is_dir():
        raise UserError(f"{arguments.results}: no such directory.")
    removed = clean(arguments.results)
    for folder in removed:
        print(f"removed {folder}")
    print(f"{len(removed)} old work directories removed")


if __name__ == "__main__":
    sys.exit(main())
