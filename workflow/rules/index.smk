rule index:
    output:
        index=f"{RESULTS}/index/{{dataset}}.parquet",
        left_out=f"{RESULTS}/index/{{dataset}}.left_out.tsv",
    log:
        f"{RESULTS}/logs/index/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/index/{{dataset}}.tsv"
    # Pictures that are missing are found before anything is trained.
    priority: 1
    conda:
        "../../envs/cpu.yaml"
    threads: 8
    params:
        spec=spec_of("datasets", "dataset"),
    shell:
        "ssltransfer index --spec {params.spec:q} --output {output.index:q} --threads {threads} > {log:q} 2>&1"
