rule features:
    input:
        model=features_model,
        data=f"{RESULTS}/index/{{dataset}}.parquet",
    output:
        f"{RESULTS}/features/{{features}}/{{dataset}}/manifest.json",
    log:
        f"{RESULTS}/logs/features/{{features}}/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/features/{{features}}/{{dataset}}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        spec=spec_of("features", "features"),
    shell:
        "ssltransfer features --spec {params.spec:q} --model {input.model:q} --data {input.data:q}"
        " --output {output:q} --threads {threads} > {log:q} 2>&1"
