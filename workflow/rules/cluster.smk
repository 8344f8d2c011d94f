rule cluster:
    input:
        features=cluster_features,
    output:
        RESULTS + "/cluster/{cluster}/manifest.json",
    log:
        RESULTS + "/logs/cluster/{cluster}.log",
    benchmark:
        RESULTS + "/benchmarks/cluster/{cluster}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        spec=spec_of("clusters", "cluster"),
    shell:
        "ssltransfer cluster --spec {params.spec:q} --features {input.features:q}"
        " --output {output:q} --threads {threads} > {log:q} 2>&1"
