# Trained models applied to whole files: the bundles of `predict.uses`, made here, by another run, or shipped.
# One folder per file: its predictions, and a status.json that says what became of it. One job for one file or more.


rule predict_camera:
    input:
        products=lambda wildcards: product_receipt("camera", wildcards.batch),
        usable=lambda wildcards: known_usable("camera", wildcards.batch),
        cards=expand("{bundle}/card.json", bundle=BUNDLES["camera"]),
        sources=sources("predict_camera"),
    output:
        receipt=receipt("predict_camera"),
    log:
        f"{RUN}/logs/predict_camera/{{batch}}.log",
    benchmark:
        f"{RUN}/benchmarks/predict_camera/{{batch}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: 1
    resources:
        gpu=GPUS,
        mem_mb=grown(2000),  # measured: 300 MB on a processor
        runtime=minutes(20, of_file=20),  # 5 s
    params:
        many=MANY_SCRIPT,
        config=CONFIG_FILE,
        files=items("camera"),
        products=verbatim(f"{RUN}/predictions/camera/{{name}}"),
        bundles=[f"--bundle={bundle}" for bundle in BUNDLES["camera"]],
        settings=settings(predict.READS_CAMERA),
    message:
        "Predict from events: {wildcards.batch}"
    shell:
        "python {params.many:q} --receipt {output.receipt:q} --settings {params.settings:q} --sources {input.sources:q}"
        " --items {params.files:q} --products {params.products:q}"
        " --shared {input.cards:q} -- predict {{value}} {params.bundles:q} --config {params.config:q}"
        " --out {params.products:q} --keep-going --force --threads {threads} 2> {log:q}"


use rule predict_camera as predict_sky with:
    input:
        products=lambda wildcards: product_receipt("sky", wildcards.batch),
        usable=lambda wildcards: known_usable("sky", wildcards.batch),
        cards=expand("{bundle}/card.json", bundle=BUNDLES["sky"]),
        sources=sources("predict_sky"),
    output:
        receipt=receipt("predict_sky"),
    log:
        f"{RUN}/logs/predict_sky/{{batch}}.log",
    benchmark:
        f"{RUN}/benchmarks/predict_sky/{{batch}}.tsv"
    params:
        many=MANY_SCRIPT,
        config=CONFIG_FILE,
        files=items("sky"),
        products=verbatim(f"{RUN}/predictions/sky/{{name}}"),
        bundles=[f"--bundle={bundle}" for bundle in BUNDLES["sky"]],
        settings=settings(predict.READS_SKY),
    message:
        "Predict from frames: {wildcards.batch}"
