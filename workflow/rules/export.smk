rule export:
    input:
        model=exported_model,
        metrics=exported_metrics,
    output:
        file=f"{RESULTS}/export/{{export}}",
        card=f"{RESULTS}/export/{{export}}.md",
    log:
        f"{RESULTS}/logs/export/{{export}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/export/{{export}}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 1
    params:
        layer=exported_layer,
    shell:
        "ssltransfer export {input.model:q} {output.file:q} {params.layer} --metrics {input.metrics:q} > {log:q} 2>&1"
