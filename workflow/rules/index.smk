rule index:
    output:
        index=f"{RESULTS}/index/{{dataset}}.parquet",
        skipped=f"{RESULTS}/index/{{dataset}}.skipped.tsv",
    log:
        f"{RESULTS}/logs/index/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/index/{{dataset}}.tsv"
    # Report missing images before any training starts.
    priority: 1
    conda:
        "../../envs/cpu.yaml"
    threads: 8
    params:
        spec=spec_of("datasets", "dataset"),
    shell:
        "ssltransfer index --spec {params.spec:q} --output {output.index:q} --threads {threads} > {log:q} 2>&1"
