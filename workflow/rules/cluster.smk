rule cluster:
    input:
        features=cluster_features,
    output:
        f"{RESULTS}/cluster/{{cluster}}/manifest.json",
    log:
        f"{RESULTS}/logs/cluster/{{cluster}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/cluster/{{cluster}}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        spec=spec_of("clusters", "cluster"),
        nodes=nodes,
    shell:
        "ssltransfer cluster --spec {params.spec:q} --features {input.features:q}"
        " --output {output:q} --threads {threads} --devices {resources.gpu} --nodes {params.nodes} > {log:q} 2>&1"
