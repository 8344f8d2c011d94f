rule pretext:
    input:
        data=pretext_data,
        val=pretext_val,
        task_data=pretext_task_data,
        model=pretext_model,
        init=initial_model("pretexts", "pretext"),
    output:
        f"{RESULTS}/pretext/{{pretext}}/manifest.json",
    log:
        f"{RESULTS}/logs/pretext/{{pretext}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/pretext/{{pretext}}.tsv"
    priority: lambda wildcards: CONFIG.priority(wildcards.pretext)
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        spec=spec_of("pretexts", "pretext"),
        nodes=nodes,
    shell:
        "ssltransfer pretext --spec {params.spec:q} --data {input.data:q} --val {input.val:q}"
        " --task-data {input.task_data:q} --model {input.model:q} --init {input.init:q}"
        " --output {output:q} --threads {threads} --devices {resources.gpu} --nodes {params.nodes} > {log:q} 2>&1"
