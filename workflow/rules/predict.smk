# Trained models applied to whole files: the bundles of `predict.uses`, made here, by another run, or shipped.
# One job and one folder per file: its predictions, and a status.json that says what became of it.


rule predict_camera:
    input:
        product=lambda wildcards: product("camera", wildcards.name),
        cards=expand("{bundle}/card.json", bundle=BUNDLES["camera"]),
        sources=sources("predict_camera"),
    output:
        folder=directory(f"{RUN}/predictions/camera/{{name}}"),
    log:
        f"{RUN}/logs/predict_camera/{{name}}.log",
    benchmark:
        f"{RUN}/benchmarks/predict_camera/{{name}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        config=CONFIG_FILE,
        file=lambda wildcards: product_file("camera", wildcards.name),
        bundles=[f"--bundle={bundle}" for bundle in BUNDLES["camera"]],
        settings=settings(predict.READS_CAMERA),
    message:
        "Predict from the events of {wildcards.name}"
    shell:
        "lightpool predict {params.file:q} {params.bundles:q} --config {params.config:q}"
        " --out {output.folder:q} --keep-going --force --threads {threads} 2> {log:q}"


use rule predict_camera as predict_sky with:
    input:
        product=lambda wildcards: product("sky", wildcards.name),
        cards=expand("{bundle}/card.json", bundle=BUNDLES["sky"]),
        sources=sources("predict_sky"),
    output:
        folder=directory(f"{RUN}/predictions/sky/{{name}}"),
    log:
        f"{RUN}/logs/predict_sky/{{name}}.log",
    benchmark:
        f"{RUN}/benchmarks/predict_sky/{{name}}.tsv"
    params:
        config=CONFIG_FILE,
        file=lambda wildcards: product_file("sky", wildcards.name),
        bundles=[f"--bundle={bundle}" for bundle in BUNDLES["sky"]],
        settings=settings(predict.READS_SKY),
    message:
        "Predict from the frame {wildcards.name}"
