rule student:
    input:
        data=student_data,
        labels=student_labels,
        heldout=student_heldout,
        heldout_labels=student_heldout_labels,
        teacher=student_teacher,
        features=student_features("data"),
        heldout_features=student_features("heldout"),
    output:
        f"{RESULTS}/student/{{student}}/manifest.json",
    log:
        f"{RESULTS}/logs/student/{{student}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/student/{{student}}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        spec=spec_of("students", "student"),
    shell:
        "ssltransfer student --spec {params.spec:q} --data {input.data:q} --labels {input.labels:q}"
        " --heldout {input.heldout:q} --heldout-labels {input.heldout_labels:q} --teacher {input.teacher:q}"
        " --features {input.features:q} --heldout-features {input.heldout_features:q}"
        " --output {output:q} --threads {threads} --devices {resources.gpu} > {log:q} 2>&1"
