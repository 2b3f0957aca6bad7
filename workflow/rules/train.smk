# A trained model and its quality, for each task.


rule train:
    input:
        manifest=lambda wildcards: f"{RUN}/tiles/{WING_OF_TASK[wildcards.task]}.manifest.json",
        origin=lambda wildcards: origin_of(wildcards.task),
        sources=sources("train"),
    output:
        card=f"{RUN}/bundles/{{task}}/card.json",
        description=f"{RUN}/bundles/{{task}}/MODEL_CARD.md",
        onnx=f"{RUN}/bundles/{{task}}/model.onnx",
        weights=f"{RUN}/bundles/{{task}}/weights.safetensors",
    log:
        f"{RUN}/logs/train/{{task}}.log",
    benchmark:
        f"{RUN}/benchmarks/train/{{task}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: CFG.threads
    resources:
        mem_mb=4000,
        runtime=600,
    params:
        config=CONFIG_FILE,
        settings=lambda wildcards: settings(f"train.{wildcards.task}", "seed"),
        folder=lambda wildcards, output: os.path.dirname(output.card),
    message:
        "Train {wildcards.task}"
    shell:
        # --resume takes up what a killed run left (checkpoints are no output: Snakemake would delete them).
        "lightpool train --config {params.config:q} --task {wildcards.task} --tiles {input.manifest:q}"
        " --out {params.folder:q} --resume --force --threads {threads} 2> {log:q}"


rule evaluate:
    input:
        card=f"{RUN}/bundles/{{task}}/card.json",
        onnx=f"{RUN}/bundles/{{task}}/model.onnx",
        manifest=lambda wildcards: f"{RUN}/tiles/{WING_OF_TASK[wildcards.task]}.manifest.json",
        sources=sources("evaluate"),
    output:
        metrics=f"{RUN}/evaluation/{{task}}/metrics.json",
    log:
        f"{RUN}/logs/evaluate/{{task}}.log",
    benchmark:
        f"{RUN}/benchmarks/evaluate/{{task}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: CFG.threads
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        config=CONFIG_FILE,
        settings=settings("evaluate", "seed"),
        bundle=lambda wildcards, input: os.path.dirname(input.card),
        folder=lambda wildcards, output: os.path.dirname(output.metrics),
    message:
        "Evaluate {wildcards.task}"
    shell:
        "lightpool evaluate --config {params.config:q} --bundle {params.bundle:q} --tiles {input.manifest:q}"
        " --out {params.folder:q} --force --threads {threads} 2> {log:q}"
