rule student:
    input:
        data=student_data,
        labels=student_labels,
        val=student_val,
        val_labels=student_val_labels,
        teacher=student_teacher,
        further_teachers=student_further_teachers,
        features=student_features("data"),
        val_features=student_features("val"),
        init=initial_model("students", "student"),
    output:
        f"{RESULTS}/student/{{student}}/manifest.json",
    log:
        f"{RESULTS}/logs/student/{{student}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/student/{{student}}.tsv"
    priority: lambda wildcards: CONFIG.priority(wildcards.student)
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        spec=spec_of("students", "student"),
        nodes=nodes,
    shell:
        "ssltransfer student --spec {params.spec:q} --data {input.data:q} --labels {input.labels:q}"
        " --val {input.val:q} --val-labels {input.val_labels:q} --teacher {input.teacher:q}"
        " --further-teachers {input.further_teachers:q}"
        " --features {input.features:q} --val-features {input.val_features:q} --init {input.init:q}"
        " --output {output:q} --threads {threads} --devices {resources.gpu} --nodes {params.nodes} > {log:q} 2>&1"
