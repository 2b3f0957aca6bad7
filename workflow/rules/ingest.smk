# Raw files to event files and calibrated frames: one folder per file, one job for one file or more. A file that cannot
# be used leaves a status that says why, and the rest goes on; `usable` gathers what came out.


rule ingest_camera:
    input:
        raw=lambda wildcards: [RAW["camera"][name] for name in INGESTED["camera"][wildcards.batch]],
        sources=sources("ingest_camera"),
    output:
        receipt=receipt("ingest_camera"),
    log:
        f"{RUN}/logs/ingest_camera/{{batch}}.log",
    benchmark:
        f"{RUN}/benchmarks/ingest_camera/{{batch}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: 1
    resources:
        mem_mb=grown(3000),
        runtime=minutes(20, of_file=30),
    params:
        many=MANY_SCRIPT,
        config=CONFIG_FILE,
        settings=settings(ingest.READS_CAMERA),
        files=lambda wildcards: [
            f"{name}={RAW['camera'][name]}" for name in INGESTED["camera"][wildcards.batch]
        ],
        products=verbatim(f"{RUN}/ingested/camera/{{name}}"),
    message:
        "Ingest camera files: {wildcards.batch}"
    shell:
        "python {params.many:q} --receipt {output.receipt:q} --settings {params.settings:q} --sources {input.sources:q}"
        " --items {params.files:q} --products {params.products:q}"
        " -- ingest {{value}} --config {params.config:q} --out {params.products:q} --keep-going --force"
        " 2> {log:q}"


use rule ingest_camera as ingest_sky with:
    input:
        raw=lambda wildcards: [
            RAW["sky"][name] for name in INGESTED["sky"][wildcards.batch] if name not in SIMULATED_FRAMES
        ],
        simulated=lambda wildcards: receipts("simulate_sky", INGESTED["sky"][wildcards.batch]),
        sources=sources("ingest_sky"),
    output:
        receipt=receipt("ingest_sky"),
    log:
        f"{RUN}/logs/ingest_sky/{{batch}}.log",
    benchmark:
        f"{RUN}/benchmarks/ingest_sky/{{batch}}.tsv"
    params:
        many=MANY_SCRIPT,
        config=CONFIG_FILE,
        settings=settings(ingest.READS_SKY),
        files=lambda wildcards: [f"{name}={RAW['sky'][name]}" for name in INGESTED["sky"][wildcards.batch]],
        products=verbatim(f"{RUN}/ingested/sky/{{name}}"),
    message:
        "Ingest frames: {wildcards.batch}"


checkpoint usable:
    input:
        receipts=lambda wildcards: receipts(f"ingest_{wildcards.wing}", RAW[wildcards.wing]),
    output:
        status=f"{RUN}/status/ingest_{{wing}}.json",
    log:
        f"{RUN}/logs/usable/{{wing}}.log",
    conda:
        "../envs/lightpool.yaml"
    params:
        script=CHECKOUT / "workflow/scripts/gather_status.py",
    message:
        "Gather which {wildcards.wing} files can be used"
    shell:
        "python {params.script:q} --out {output.status:q} {input.receipts:q} 2> {log:q}"
