# Instrument response functions: runs of their own, which never become tiles, predicted with the trained networks.


use rule simulate_showers as simulate_irf with:
    output:
        receipt=receipt("simulate_irf"),
    log:
        f"{RUN}/logs/simulate_irf/{{batch}}.log",
    benchmark:
        f"{RUN}/benchmarks/simulate_irf/{{batch}}.tsv"
    params:
        many=MANY_SCRIPT,
        config=CONFIG_FILE,
        settings=settings(simulate_showers.READS_IRF),
        files=lambda wildcards: [
            f"{name}={name.removeprefix('run_')}" for name in IRF_BATCHES[wildcards.batch]
        ],
        products=verbatim(f"{RUN}/irf_events/{{name}}.dl1.h5"),
    message:
        "Simulate runs for responses: {wildcards.batch}"


rule predict_irf:
    input:
        events=receipt("simulate_irf"),
        cards=expand("{bundle}/card.json", bundle=IRF_BUNDLES),
        sources=sources("predict_camera"),
    output:
        receipt=receipt("predict_irf"),
    log:
        f"{RUN}/logs/predict_irf/{{batch}}.log",
    benchmark:
        f"{RUN}/benchmarks/predict_irf/{{batch}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: 1
    resources:
        gpu=GPUS,
        mem_mb=grown(2000),
        runtime=minutes(20, of_file=20),
    params:
        many=MANY_SCRIPT,
        config=CONFIG_FILE,
        files=lambda wildcards: [
            f"{name}={RUN}/irf_events/{name}.dl1.h5" for name in IRF_BATCHES[wildcards.batch]
        ],
        products=verbatim(f"{RUN}/irf_events/{{name}}.dl2.h5"),
        bundles=[f"--bundle={bundle}" for bundle in IRF_BUNDLES],
        settings=settings(predict.READS_CAMERA),
    message:
        "Predict from events for responses: {wildcards.batch}"
    shell:
        "python {params.many:q} --receipt {output.receipt:q} --settings {params.settings:q} --sources {input.sources:q}"
        " --items {params.files:q} --products {params.products:q}"
        " --shared {input.cards:q} -- predict {{value}} {params.bundles:q} --config {params.config:q}"
        " --out {params.products:q} --force --threads {threads} 2> {log:q}"


rule irf:
    input:
        events=receipts("predict_irf", IRF_RUNS),
        tiles=IRF_TILES,
        sources=sources("irf"),
    output:
        folder=directory(f"{RUN}/irf"),
    log:
        f"{RUN}/logs/irf.log",
    benchmark:
        f"{RUN}/benchmarks/irf.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: CFG.threads
    resources:
        mem_mb=grown(4000),
        runtime=minutes(120),
    params:
        config=CONFIG_FILE,
        events=expand("{run}/irf_events/{name}.dl2.h5", run=RUN, name=IRF_RUNS),
        bundles=f"{RUN}/bundles",
        tiles=[f"--tiles={manifest}" for manifest in IRF_TILES],
        settings=settings(irf.READS),
    message:
        "Make instrument response functions"
    shell:
        "lightpool irf {params.events:q} --config {params.config:q} --bundles {params.bundles:q}"
        " {params.tiles:q} --out {output.folder:q} --jobs {threads} --force 2> {log:q}"
