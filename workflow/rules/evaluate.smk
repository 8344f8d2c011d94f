rule evaluate:
    input:
        model=evaluated_model,
        train=evaluated_index("train"),
        test=evaluated_index("test"),
        train_features=evaluated_features("train"),
        test_features=evaluated_features("test"),
    output:
        f"{RESULTS}/evaluate/{{evaluation}}/{{model}}.json",
    log:
        f"{RESULTS}/logs/evaluate/{{evaluation}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate/{{evaluation}}/{{model}}.tsv"
    priority: lambda wildcards: CONFIG.priority(wildcards.model)
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        spec=evaluation_spec,
        nodes=nodes,
    shell:
        "ssltransfer evaluate --spec {params.spec:q} --model {input.model:q} --train {input.train:q}"
        " --test {input.test:q} --train-features {input.train_features:q} --test-features {input.test_features:q}"
        " --output {output:q} --threads {threads} --devices {resources.gpu} --nodes {params.nodes} > {log:q} 2>&1"
