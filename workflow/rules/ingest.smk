# Raw files to event files and calibrated frames: one job per file. A file that cannot be used leaves a status that
# says why, and the rest goes on; `usable` gathers what came out.


rule ingest_camera:
    input:
        raw=lambda wildcards: RAW["camera"][wildcards.name],
        sources=sources("ingest_camera"),
    output:
        folder=directory(f"{RUN}/ingested/camera/{{name}}"),
    log:
        f"{RUN}/logs/ingest_camera/{{name}}.log",
    benchmark:
        f"{RUN}/benchmarks/ingest_camera/{{name}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        config=CONFIG_FILE,
        settings=settings(ingest.READS_CAMERA),
    message:
        "Ingest {input.raw}"
    shell:
        "lightpool ingest {input.raw:q} --config {params.config:q} --out {output.folder:q} --keep-going --force"
        " 2> {log:q}"


use rule ingest_camera as ingest_sky with:
    input:
        raw=lambda wildcards: RAW["sky"][wildcards.name],
        sources=sources("ingest_sky"),
    output:
        folder=directory(f"{RUN}/ingested/sky/{{name}}"),
    log:
        f"{RUN}/logs/ingest_sky/{{name}}.log",
    benchmark:
        f"{RUN}/benchmarks/ingest_sky/{{name}}.tsv"
    params:
        config=CONFIG_FILE,
        settings=settings(ingest.READS_SKY),
    message:
        "Ingest {input.raw}"


checkpoint usable:
    input:
        folders=lambda wildcards: expand(
            "{run}/ingested/{wing}/{name}",
            run=RUN,
            wing=wildcards.wing,
            name=RAW[wildcards.wing],
        ),
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
        "python {params.script:q} --out {output.status:q} {input.folders:q} 2> {log:q}"
