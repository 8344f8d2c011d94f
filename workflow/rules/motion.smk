# Only for datasets of format video; index_of in common.smk selects the index of their clips.
rule motion:
    input:
        index=f"{RESULTS}/index/{{dataset}}.parquet",
        skipped=f"{RESULTS}/index/{{dataset}}.skipped.tsv",
    output:
        index=f"{RESULTS}/motion/{{dataset}}.parquet",
        skipped=f"{RESULTS}/motion/{{dataset}}.skipped.tsv",
    log:
        f"{RESULTS}/logs/motion/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/motion/{{dataset}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 8
    params:
        spec=motion_spec,
    shell:
        "ssltransfer motion --spec {params.spec:q} --data {input.index:q} --output {output.index:q}"
        " --threads {threads} > {log:q} 2>&1"
