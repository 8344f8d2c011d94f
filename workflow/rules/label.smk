rule label:
    input:
        cluster=RESULTS + "/cluster/{cluster}/manifest.json",
        features=label_features,
        index=RESULTS + "/index/{dataset}.parquet",
    output:
        RESULTS + "/label/{cluster}/{dataset}.parquet",
    log:
        RESULTS + "/logs/label/{cluster}/{dataset}.log",
    benchmark:
        RESULTS + "/benchmarks/label/{cluster}/{dataset}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        spec="label",
    shell:
        "ssltransfer label --spec {params.spec:q} --cluster {input.cluster:q} --features {input.features:q}"
        " --index {input.index:q} --output {output:q} --threads {threads} > {log:q} 2>&1"
