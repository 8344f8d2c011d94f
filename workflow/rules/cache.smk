# Only for datasets with `cache:`; index_of in common.smk selects their cached index.
rule cache:
    input:
        index=f"{RESULTS}/index/{{dataset}}.parquet",
        skipped=f"{RESULTS}/index/{{dataset}}.skipped.tsv",
    output:
        index=f"{RESULTS}/cache/{{dataset}}.parquet",
        skipped=f"{RESULTS}/cache/{{dataset}}.skipped.tsv",
    log:
        f"{RESULTS}/logs/cache/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/cache/{{dataset}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 8
    params:
        spec=cache_spec,
    shell:
        "ssltransfer cache --spec {params.spec:q} --data {input.index:q} --output {output.index:q}"
        " --threads {threads} > {log:q} 2>&1"
