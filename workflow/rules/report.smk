localrules:
    report,


rule report:
    input:
        **REPORTED,
    output:
        report(
            REPORT,
            caption="../captions/report.rst",
            category="Report",
        ),
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        spec=report_spec,
    shell:
        "ssltransfer report --spec {params.spec:q} --indexes {input.indexes:q} --models {input.models:q}"
        " --features {input.features:q} --clusters {input.clusters:q} --labels {input.labels:q}"
        " --metrics {input.metrics:q} --output {output:q} > {log:q} 2>&1"
