rule label:
    input:
        cluster=f"{RESULTS}/cluster/{{cluster}}/manifest.json",
        features=label_features,
        index=f"{RESULTS}/index/{{dataset}}.parquet",
    output:
        f"{RESULTS}/label/{{cluster}}/{{dataset}}.parquet",
    log:
        f"{RESULTS}/logs/label/{{cluster}}/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/label/{{cluster}}/{{dataset}}.tsv"
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
