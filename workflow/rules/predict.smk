# Trained models applied to whole files: the bundles of `predict.uses`, made here, by another run, or shipped.
# One file of predictions for each input, and a status.json that says what became of it.


rule predict_camera:
    input:
        products=lambda wildcards: [product("camera", name) for name in names_of("camera")],
        cards=expand("{bundle}/card.json", bundle=BUNDLES["camera"]),
        sources=sources("predict_camera"),
    output:
        folder=directory(f"{RUN}/predictions/camera"),
    log:
        f"{RUN}/logs/predict_camera.log",
    benchmark:
        f"{RUN}/benchmarks/predict_camera.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: CFG.threads
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        config=CONFIG_FILE,
        files=lambda wildcards: [product_file("camera", name) for name in names_of("camera")],
        bundles=[f"--bundle={bundle}" for bundle in BUNDLES["camera"]],
        settings=settings("predict"),
    message:
        "Predict from all event files"
    shell:
        "lightpool predict {params.files:q} {params.bundles:q} --config {params.config:q} --out {output.folder:q}"
        " --keep-going --force --threads {threads} 2> {log:q}"


rule predict_sky:
    input:
        products=lambda wildcards: [product("sky", name) for name in names_of("sky")],
        cards=expand("{bundle}/card.json", bundle=BUNDLES["sky"]),
        sources=sources("predict_sky"),
    output:
        folder=directory(f"{RUN}/predictions/sky"),
    log:
        f"{RUN}/logs/predict_sky.log",
    benchmark:
        f"{RUN}/benchmarks/predict_sky.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: CFG.threads
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        config=CONFIG_FILE,
        files=lambda wildcards: [product_file("sky", name) for name in names_of("sky")],
        bundles=[f"--bundle={bundle}" for bundle in BUNDLES["sky"]],
        settings=settings("predict"),
    message:
        "Predict from all frames"
    shell:
        "lightpool predict {params.files:q} {params.bundles:q} --config {params.config:q} --out {output.folder:q}"
        " --keep-going --force --threads {threads} 2> {log:q}"
