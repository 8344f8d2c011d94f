rule features:
    input:
        model=features_model,
        data=dataset_index,
        shards=features_shards,
    output:
        f"{RESULTS}/features/{{features}}/{{dataset}}/manifest.json",
    log:
        f"{RESULTS}/logs/features/{{features}}/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/features/{{features}}/{{dataset}}.tsv"
    priority: features_priority
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        spec=spec_of("features", "features"),
        nodes=nodes,
    shell:
        "ssltransfer features --spec {params.spec:q} --model {input.model:q} --data {input.data:q}"
        " --output {output:q} --threads {threads} --devices {resources.gpu} --nodes {params.nodes} > {log:q} 2>&1"


# Computes a shard of the chunks into the same store; only with --set-scatter features=N, N > 1.
rule features_shard:
    input:
        model=features_model,
        data=dataset_index,
    output:
        temp(f"{RESULTS}/features/{{features}}/{{dataset}}/{{scatteritem}}.json"),
    log:
        f"{RESULTS}/logs/features_shard/{{features}}/{{dataset}}/{{scatteritem}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/features_shard/{{features}}/{{dataset}}/{{scatteritem}}.tsv"
    priority: features_priority
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        spec=spec_of("features", "features"),
        nodes=nodes,
    shell:
        "ssltransfer features --spec {params.spec:q} --model {input.model:q} --data {input.data:q}"
        " --shard {wildcards.scatteritem} --output {output:q}"
        " --threads {threads} --devices {resources.gpu} --nodes {params.nodes} > {log:q} 2>&1"
