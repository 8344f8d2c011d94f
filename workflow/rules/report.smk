localrules:
    report,


rule report:
    input:
        indexes=all_indexes,
        models=all_models,
        features=all_features,
        clusters=all_clusters,
        labels=all_labels,
        metrics=all_metrics,
    output:
        report(
            RESULTS + "/report/index.html",
            caption="../captions/report.rst",
            category="Report",
        ),
    log:
        RESULTS + "/logs/report.log",
    benchmark:
        RESULTS + "/benchmarks/report.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        spec=CONFIG.report.canonical(),
    shell:
        "ssltransfer report --spec {params.spec:q} --indexes {input.indexes:q} --models {input.models:q}"
        " --features {input.features:q} --clusters {input.clusters:q} --labels {input.labels:q}"
        " --metrics {input.metrics:q} --output {output:q} > {log:q} 2>&1"
