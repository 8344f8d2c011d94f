# Only for datasets with `curate:`; index_of in common.smk selects their index.
rule curate:
    input:
        data=curate_data,
        cluster=curate_cluster,
        labels=curate_labels,
        features=curate_features,
    output:
        index=f"{RESULTS}/curate/{{dataset}}.parquet",
        skipped=f"{RESULTS}/curate/{{dataset}}.skipped.tsv",
        list=f"{RESULTS}/curate/{{dataset}}.txt",
    log:
        f"{RESULTS}/logs/curate/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/curate/{{dataset}}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        spec=curate_spec,
    shell:
        "ssltransfer curate --spec {params.spec:q} --data {input.data:q} --cluster {input.cluster:q}"
        " --labels {input.labels:q} --features {input.features:q} --output {output.index:q} --threads {threads}"
        " --devices {resources.gpu} > {log:q} 2>&1"
