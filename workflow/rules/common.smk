# What the rules need to know of the configuration: paths and specs of named things. No logic of a stage is here,
# and no torch: this file is read at the start of every job.

import os
import sys
from pathlib import Path

from ssltransfer.config import ConfigError, complete

try:
    CONFIG = complete(dict(config))
except ConfigError as error:
    # No exception, of which Snakemake would show the lines of this file.
    sys.exit(f"ssltransfer: {error}")

RESULTS = CONFIG.results

# The command `ssltransfer` is found beside this Python even where its environment was not activated.
os.environ.update(
    PATH=os.pathsep.join([*os.get_exec_path(), str(Path(sys.executable).parent)])
)


# How many jobs share the chunks of a feature store: --set-scatter features=8.
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


def spec_of(section, wildcard):
    """The canonical spec of the named thing that a job makes: the job's only parameter."""

    def spec(wildcards):
        return getattr(CONFIG, section)[wildcards[wildcard]].canonical()

    return spec


def report_spec(wildcards):
    """A function, because Snakemake would look for wildcards in a plain text with braces."""
    return CONFIG.report.canonical()


def cache_spec(wildcards):
    return CONFIG.datasets[wildcards.dataset].cache.canonical()


def motion_spec(wildcards):
    return CONFIG.datasets[wildcards.dataset].motion.canonical()


def index_of(dataset):
    """The index that every reader of images is given: of the files, of the cache, or of the clips of videos."""
    entry = CONFIG.datasets[dataset]
    made = "motion" if entry.format == "video" else "cache" if entry.cache else "index"
    return f"{RESULTS}/{made}/{dataset}.parquet"


def dataset_index(wildcards):
    return index_of(wildcards.dataset)


def model_of(name):
    return f"{RESULTS}/{CONFIG.model(name).stage}/{name}/manifest.json"


def features_of(name, dataset, file="manifest.json"):
    return f"{RESULTS}/features/{name}/{dataset}/{file}"


def labels_of(cluster, dataset):
    return f"{RESULTS}/label/{cluster}/{dataset}.parquet"


def some(path_of, *names):
    """[path_of(*names)], or nothing where a name is not given."""
    return [path_of(*names)] if all(names) else []


def pretext_data(wildcards):
    return some(index_of, CONFIG.pretexts[wildcards.pretext].data)


def pretext_val(wildcards):
    return some(index_of, CONFIG.pretexts[wildcards.pretext].val)


def pretext_task_data(wildcards):
    """Images of several tasks that are not the pretext's own."""
    return [index_of(name) for name in CONFIG.pretexts[wildcards.pretext].task_datasets]


def pretext_model(wildcards):
    """What a snapshot is of."""
    return some(model_of, getattr(CONFIG.pretexts[wildcards.pretext].task, "of", None))


def features_model(wildcards):
    return model_of(CONFIG.features[wildcards.features].model)


def features_shards(wildcards):
    """What the shards of an extraction leave; nothing where the whole is one job."""
    shards = gather.features(
        features_of(wildcards.features, wildcards.dataset, "{scatteritem}.json")
    )
    return shards if len(shards) > 1 else []


def cluster_features(wildcards):
    cluster = CONFIG.clusters[wildcards.cluster]
    return features_of(cluster.features, cluster.data)


def labelled(wildcards):
    """The features entry that a dataset is labelled by, and whether they are stored."""
    name = CONFIG.clusters[wildcards.cluster].features
    return name, CONFIG.reads_features(wildcards.cluster, wildcards.dataset)


def label_features(wildcards):
    name, stored = labelled(wildcards)
    return [features_of(name, wildcards.dataset)] if stored else []


def label_model(wildcards):
    name, stored = labelled(wildcards)
    return [] if stored else [model_of(CONFIG.features[name].model)]


def label_spec(wildcards):
    name, stored = labelled(wildcards)
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
    """The model that is asked while the student trains."""
    if CONFIG.teacher_features_of(wildcards.student):
        return []
    return some(
        model_of, getattr(CONFIG.students[wildcards.student].method, "teacher", None)
    )


def student_features(part):
    """What the teacher said before, of the training images (data) or the validation images."""

    def path(wildcards):
        dataset = getattr(CONFIG.students[wildcards.student], part)
        return some(features_of, CONFIG.teacher_features_of(wildcards.student), dataset)

    return path


def evaluation_spec(wildcards):
    return CONFIG.evaluations[wildcards.evaluation].measurement.canonical()


def evaluated_model(wildcards):
    return model_of(wildcards.model)


def evaluated_index(part):
    def path(wildcards):
        dataset = getattr(CONFIG.evaluations[wildcards.evaluation], part)
        return index_of(dataset) if dataset else []

    return path


def evaluated_features(part):
    def path(wildcards):
        evaluation = CONFIG.evaluations[wildcards.evaluation]
        if evaluation.protocol.input_kind != "features" or not getattr(evaluation, part):
            return []
        name = CONFIG.evaluated_features(wildcards.evaluation, wildcards.model)
        return features_of(name, getattr(evaluation, part))

    return path


def all_indexes(wildcards):
    return [index_of(dataset) for dataset in CONFIG.datasets]


def all_models(wildcards):
    return [model_of(name) for name in [*CONFIG.pretexts, *CONFIG.students]]


def all_features(wildcards):
    return [
        features_of(name, data)
        for name in CONFIG.features
        for data in sorted(CONFIG.datasets_of_features(name))
    ]


def all_clusters(wildcards):
    return [f"{RESULTS}/cluster/{name}/manifest.json" for name in CONFIG.clusters]


def all_labels(wildcards):
    return [labels_of(*pair) for pair in sorted(CONFIG.labels())]


def all_metrics(wildcards):
    return [
        f"{RESULTS}/evaluate/{evaluation}/{model}.json"
        for evaluation, models in CONFIG.rows.items()
        for model in models
    ]
