# Trained models applied to whole files: the bundles of `predict.uses`, made here, by another run, or shipped.


rule predict_camera:
    input:
        products=lambda wildcards: [product("camera", name) for name in names_of("camera")],
        cards=lambda wildcards: bundle_cards("camera"),
        sources=sources("predict_camera"),
    output:
        events=f"{RUN}/predictions/camera.dl2.h5",
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
        files=lambda wildcards: [product_file("camera", name) for name in names_of("camera")],
        bundles=lambda wildcards: bundle_options("camera"),
        settings=settings("predict"),
    message:
        "Predict from all event files"
    shell:
        "lightpool predict {params.files:q} {params.bundles:q} --out {output.events:q} --force --threads {threads}"
        " 2> {log:q}"


rule predict_sky:
    input:
        products=lambda wildcards: [product("sky", name) for name in names_of("sky")],
        cards=lambda wildcards: bundle_cards("sky"),
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
        files=lambda wildcards: [product_file("sky", name) for name in names_of("sky")],
        bundles=lambda wildcards: bundle_options("sky"),
        settings=settings("predict"),
    message:
        "Predict from all frames"
    shell:
        "lightpool predict {params.files:q} {params.bundles:q} --out {output.folder:q} --force --threads {threads}"
        " 2> {log:q}"
