rule index:
    output:
        index=RESULTS + "/index/{dataset}.parquet",
        left_out=RESULTS + "/index/{dataset}.left_out.tsv",
    log:
        RESULTS + "/logs/index/{dataset}.log",
    benchmark:
        RESULTS + "/benchmarks/index/{dataset}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 8
    params:
        spec=spec_of("datasets", "dataset"),
    shell:
        "ssltransfer index --spec {params.spec:q} --output {output.index:q} --threads {threads} > {log:q} 2>&1"
