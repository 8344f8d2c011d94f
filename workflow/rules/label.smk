rule label:
    input:
        cluster=f"{RESULTS}/cluster/{{cluster}}/manifest.json",
        features=label_features,
        model=label_model,
        index=dataset_index,
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
        spec=label_spec,
    shell:
        "ssltransfer label --spec {params.spec:q} --cluster {input.cluster:q} --features {input.features:q}"
        " --model {input.model:q} --index {input.index:q} --output {output:q} --threads {threads}"
        " --devices {resources.gpu} > {log:q} 2>&1"
