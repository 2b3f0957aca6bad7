# Instrument response functions: runs of their own, which never become tiles, predicted with the trained networks.


use rule simulate_showers as simulate_irf with:
    output:
        events=f"{RUN}/irf_events/run_{{run}}.dl1.h5",
    log:
        f"{RUN}/logs/simulate_irf/{{run}}.log",
    benchmark:
        f"{RUN}/benchmarks/simulate_irf/{{run}}.tsv"
    params:
        config=CONFIG_FILE,
        settings=settings(simulate_showers.READS_IRF),
        run=lambda wildcards: int(wildcards.run),
    message:
        "Simulate run {wildcards.run} for responses"


rule predict_irf:
    input:
        events=f"{RUN}/irf_events/run_{{run}}.dl1.h5",
        cards=expand("{bundle}/card.json", bundle=IRF_BUNDLES),
        sources=sources("predict_camera"),
    output:
        events=f"{RUN}/irf_events/run_{{run}}.dl2.h5",
    log:
        f"{RUN}/logs/predict_irf/{{run}}.log",
    benchmark:
        f"{RUN}/benchmarks/predict_irf/{{run}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        config=CONFIG_FILE,
        bundles=[f"--bundle={bundle}" for bundle in IRF_BUNDLES],
        settings=settings(predict.READS_CAMERA),
    message:
        "Predict from the events of run {wildcards.run} for responses"
    shell:
        "lightpool predict {input.events:q} {params.bundles:q} --config {params.config:q} --out {output.events:q}"
        " --force --threads {threads} 2> {log:q}"


rule irf:
    input:
        events=expand("{run}/irf_events/run_{number}.dl2.h5", run=RUN, number=CFG.irf.runs),
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
        mem_mb=4000,
        runtime=120,
    params:
        config=CONFIG_FILE,
        bundles=f"{RUN}/bundles",
        tiles=[f"--tiles={manifest}" for manifest in IRF_TILES],
        settings=settings(irf.READS),
    message:
        "Make instrument response functions"
    shell:
        "lightpool irf {input.events:q} --config {params.config:q} --bundles {params.bundles:q}"
        " {params.tiles:q} --out {output.folder:q} --jobs {threads} --force 2> {log:q}"
