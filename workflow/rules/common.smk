# Paths and specs of the entries of the configuration. No stage logic and no torch: every job loads this file.

import os
import shlex
import sys
from pathlib import Path

from ssltransfer.artifacts.outdated import outdated_outputs
from ssltransfer.config import ConfigError, check_keys, complete, only_table
from ssltransfer.config.outputs import (
    export_paths,
    index_path,
    model_path,
    report_inputs,
    report_path,
)
from ssltransfer.pipeline import FOLDER
from ssltransfer.planning.inputs import input_problems

try:
    for file in workflow.configfiles:
        check_keys(file)
    content = dict(config)
    table = content.pop("table", None)  # --config table=TITLE
    CONFIG = complete(content)
    if table is not None:
        CONFIG = only_table(CONFIG, str(table))
except ConfigError as error:
    # Not an exception: Snakemake would print lines of this file.
    sys.exit(f"ssltransfer: {error}")

RESULTS = CONFIG.results

# An image made by Containerfile, for `--sdm apptainer`.
CONTAINER = os.environ.get("SSLTRANSFER_CONTAINER")

# Snakemake takes outputs of which it has no record, such as copied results, for up to date.
OUTDATED = outdated_outputs(CONFIG)
if OUTDATED:
    sys.exit(
        f"ssltransfer: {OUTDATED[0]}: made with other options, and Snakemake has no record of it (copied results?); "
        f"remove outdated outputs and run again: rm {shlex.join(OUTDATED)}"
    )

if not CONFIG.datasets and not CONFIG.models:
    sys.exit(
        "ssltransfer: the configuration has no datasets and no models; see config/README.md."
    )

# Only once, not in each job.
if workflow.is_main_process:
    for problem in input_problems(CONFIG):
        sys.exit(f"ssltransfer: {problem}")

# Find the command `ssltransfer` next to this Python even if its environment is not activated. Names of images are UTF-8
# whatever the locale. The scripts of envs/ install this package: Snakemake runs copies of them in another folder.
os.environ.update(
    PYTHONUTF8="1",
    SSLTRANSFER_PIPELINE=str(FOLDER),
    PATH=os.pathsep.join([*os.get_exec_path(), str(Path(sys.executable).parent)]),
)


# Number of jobs that share the chunks of a feature store: --set-scatter features=8.
scattergather:
    features=1,


wildcard_constraints:
    dataset=r"[^/]+",
    pretext=r"[^/]+",
    features=r"[^/]+",
    cluster=r"[^/]+",
    student=r"[^/]+",
    evaluation=r"[^/]+",
    model=r"[^/]+",
    export=r"[^/]+(?<!\.md)",


def spec_of(section, wildcard):
    """The canonical spec of the entry that a job makes."""

    def spec(wildcards):
        return getattr(CONFIG, section)[wildcards[wildcard]].canonical()

    return spec


def nodes(wildcards, resources):
    """Nodes of a Slurm job, which a profile may set (docs/running.md)."""
    count = resources.get("nodes", 1)
    if count > 1 and not resources.get("mpi"):
        sys.exit(
            f"ssltransfer: a job on {count} nodes needs the resources mpi and tasks_per_node too, or Slurm starts it "
            "on one of them; see Several nodes in docs/running.md."
        )
    return count


def report_spec(wildcards):
    """A function, because Snakemake would read braces in a string as wildcards."""
    return CONFIG.report.canonical()


def cache_spec(wildcards):
    return CONFIG.datasets[wildcards.dataset].cache.canonical()


def motion_spec(wildcards):
    return CONFIG.datasets[wildcards.dataset].motion.canonical()


def index_of(dataset):
    return index_path(CONFIG, dataset)


def curate_spec(wildcards):
    return CONFIG.datasets[wildcards.dataset].curate.canonical()


def curate_data(wildcards):
    return index_of(CONFIG.curator_of(wildcards.dataset).data)


def curate_cluster(wildcards):
    name = CONFIG.datasets[wildcards.dataset].curate.cluster
    return f"{RESULTS}/cluster/{name}/manifest.json"


def curate_labels(wildcards):
    name = CONFIG.datasets[wildcards.dataset].curate.cluster
    return labels_of(name, CONFIG.curator_of(wildcards.dataset).data)


def curate_features(wildcards):
    """The clustered features, if near duplicates are removed."""
    cluster = CONFIG.curator_of(wildcards.dataset)
    compared = CONFIG.datasets[wildcards.dataset].curate.max_similarity
    return [features_of(cluster.features, cluster.data)] if compared else []


def dataset_index(wildcards):
    return index_of(wildcards.dataset)


def model_of(name):
    return model_path(CONFIG, name)


def features_of(name, dataset, file="manifest.json"):
    return f"{RESULTS}/features/{name}/{dataset}/{file}"


def labels_of(cluster, dataset):
    return f"{RESULTS}/label/{cluster}/{dataset}.parquet"


def some(path_of, *names):
    """[path_of(*names)], or [] if a name is missing."""
    return [path_of(*names)] if all(names) else []


def pretext_data(wildcards):
    return some(index_of, CONFIG.pretexts[wildcards.pretext].data)


def pretext_val(wildcards):
    return some(index_of, CONFIG.pretexts[wildcards.pretext].val)


def pretext_task_data(wildcards):
    """Indexes of further datasets of a multi-task pretext."""
    return [index_of(name) for name in CONFIG.pretexts[wildcards.pretext].task_datasets]


def pretext_model(wildcards):
    """The pretext that a snapshot belongs to."""
    return some(
        model_of, getattr(CONFIG.pretexts[wildcards.pretext].task, "source", None)
    )


def initial_model(section, wildcard):
    """The model whose weights a training starts from."""

    def path(wildcards):
        return some(model_of, getattr(CONFIG, section)[wildcards[wildcard]].init)

    return path


def features_model(wildcards):
    return some(model_of, CONFIG.features[wildcards.features].model)


def features_priority(wildcards):
    """As for models: files that were made elsewhere come first, because a wrong file ends the run."""
    model = CONFIG.features[wildcards.features].model
    return CONFIG.priority(model) if model else 1


def features_shards(wildcards):
    """Outputs of the shards of an extraction; [] if one job does everything."""
    if CONFIG.has_file(wildcards.features):
        return []
    shards = gather.features(
        features_of(wildcards.features, wildcards.dataset, "{scatteritem}.json")
    )
    return shards if len(shards) > 1 else []


def cluster_features(wildcards):
    cluster = CONFIG.clusters[wildcards.cluster]
    return features_of(cluster.features, cluster.data)


def label_source(wildcards):
    """Name of the features of a label job, and whether they are stored."""
    name = CONFIG.clusters[wildcards.cluster].features
    return name, CONFIG.reads_features(wildcards.cluster, wildcards.dataset)


def label_features(wildcards):
    name, stored = label_source(wildcards)
    return [features_of(name, wildcards.dataset)] if stored else []


def label_model(wildcards):
    name, stored = label_source(wildcards)
    return [] if stored else [model_of(CONFIG.features[name].model)]


def label_spec(wildcards):
    name, stored = label_source(wildcards)
    return "label" if stored else CONFIG.features[name].canonical()


def student_data(wildcards):
    return index_of(CONFIG.students[wildcards.student].data)


def student_val(wildcards):
    return some(index_of, CONFIG.students[wildcards.student].val)


def student_labels(wildcards):
    student = CONFIG.students[wildcards.student]
    return some(labels_of, getattr(student.method, "cluster", None), student.data)


def student_val_labels(wildcards):
    student = CONFIG.students[wildcards.student]
    return some(labels_of, getattr(student.method, "cluster", None), student.val)


def student_teacher(wildcards):
    """The teacher that runs while the student trains."""
    if CONFIG.teacher_features_of(wildcards.student):
        return []
    return some(
        model_of, getattr(CONFIG.students[wildcards.student].method, "teacher", None)
    )


def student_further_teachers(wildcards):
    """Teachers beside it."""
    return [
        model_of(name) for name in CONFIG.students[wildcards.student].method.further
    ]


def student_features(key):
    """Precomputed teacher features of the training images (data) or the validation images (val)."""

    def path(wildcards):
        dataset = getattr(CONFIG.students[wildcards.student], key)
        return some(features_of, CONFIG.teacher_features_of(wildcards.student), dataset)

    return path


def evaluation_spec(wildcards):
    return CONFIG.evaluations[wildcards.evaluation].measurement.canonical()


def evaluated_model(wildcards):
    return model_of(wildcards.model)


def evaluated_index(key):
    def path(wildcards):
        dataset = getattr(CONFIG.evaluations[wildcards.evaluation], key)
        return index_of(dataset) if dataset else []

    return path


def evaluated_features(key):
    def path(wildcards):
        evaluation = CONFIG.evaluations[wildcards.evaluation]
        if evaluation.protocol.input_kind != "features" or not getattr(evaluation, key):
            return []
        name = CONFIG.evaluated_features(wildcards.evaluation, wildcards.model)
        return features_of(name, getattr(evaluation, key))

    return path


def exported_model(wildcards):
    return model_of(CONFIG.exports[wildcards.export].model)


def exported_metrics(wildcards):
    """Of all evaluations of the model, for its card."""
    model = CONFIG.exports[wildcards.export].model
    return [
        f"{RESULTS}/evaluate/{evaluation}/{model}.json"
        for evaluation, models in CONFIG.rows.items()
        if model in models
    ]


def exported_layer(wildcards):
    layer = CONFIG.exports[wildcards.export].layer
    return f"--layer {layer}" if layer else ""


# All results, for the report: option of its command -> paths.
REPORTED = report_inputs(CONFIG)
REPORT = report_path(CONFIG)
