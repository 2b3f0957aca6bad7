# A trained network and how good it is, head by head.


rule train:
    input:
        manifest=lambda wildcards: f"{RUN}/tiles/{WING_OF[wildcards.network]}.manifest.json",
        origin=lambda wildcards: origin_of(wildcards.network),
        sources=sources("train"),
    output:
        card=f"{RUN}/bundles/{{network}}/card.json",
        description=f"{RUN}/bundles/{{network}}/MODEL_CARD.md",
        onnx=f"{RUN}/bundles/{{network}}/model.onnx",
        weights=f"{RUN}/bundles/{{network}}/weights.safetensors",
    log:
        f"{RUN}/logs/train/{{network}}.log",
    benchmark:
        f"{RUN}/benchmarks/train/{{network}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: CFG.threads
    resources:
        gpu=GPUS,
        mem_mb=grown(4000),  # measured: 550 to 750 MB on a processor
        runtime=minutes(600),
    params:
        config=CONFIG_FILE,
        settings=lambda wildcards: settings(train.reads(wildcards.network)),
        folder=lambda wildcards, output: os.path.dirname(output.card),
    message:
        "Train {wildcards.network}"
    shell:
        # --resume takes up what a killed run left (checkpoints are no output: Snakemake would delete them).
        "lightpool train {input.manifest:q} --config {params.config:q} --network {wildcards.network:q}"
        " --out {params.folder:q} --resume --force --threads {threads} 2> {log:q}"


rule evaluate:
    input:
        card=f"{RUN}/bundles/{{network}}/card.json",
        onnx=f"{RUN}/bundles/{{network}}/model.onnx",
        manifest=lambda wildcards: f"{RUN}/tiles/{WING_OF[wildcards.network]}.manifest.json",
        sources=sources("evaluate"),
    output:
        folder=directory(f"{RUN}/evaluation/{{network}}"),
    log:
        f"{RUN}/logs/evaluate/{{network}}.log",
    benchmark:
        f"{RUN}/benchmarks/evaluate/{{network}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: CFG.threads
    resources:
        gpu=GPUS,
        mem_mb=grown(4000),
        runtime=minutes(120),
    params:
        config=CONFIG_FILE,
        settings=settings(evaluate.READS),
        bundle=lambda wildcards, input: os.path.dirname(input.card),
    message:
        "Evaluate {wildcards.network}"
    shell:
        "lightpool evaluate {input.manifest:q} --config {params.config:q} --bundle {params.bundle:q}"
        " --out {output.folder:q} --force --threads {threads} 2> {log:q}"
