# Simulated data: one job per run.


rule simulate_showers:
    input:
        sources=sources("simulate_showers"),
    output:
        events=f"{RUN}/raw/shower_run_{{run}}.dl1.h5",
    log:
        f"{RUN}/logs/simulate_showers/{{run}}.log",
    benchmark:
        f"{RUN}/benchmarks/simulate_showers/{{run}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        config=CONFIG_FILE,
        settings=settings(simulate_showers.READS),
        run=lambda wildcards: int(wildcards.run),
    message:
        "Simulate shower run {wildcards.run}"
    shell:
        "lightpool simulate showers --config {params.config:q} --run {params.run} --out {output.events:q} --force"
        " 2> {log:q}"


rule simulate_sky:
    input:
        sources=sources("simulate_sky"),
    output:
        frame=f"{RUN}/raw/sky_run_{{run}}.fits",
        truth=f"{RUN}/raw/sky_run_{{run}}.truth.fits",
    log:
        f"{RUN}/logs/simulate_sky/{{run}}.log",
    benchmark:
        f"{RUN}/benchmarks/simulate_sky/{{run}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        config=CONFIG_FILE,
        settings=settings(simulate_sky.READS),
        run=lambda wildcards: int(wildcards.run),
    message:
        "Simulate sky frame {wildcards.run}"
    shell:
        "lightpool simulate sky --config {params.config:q} --run {params.run} --out {output.frame:q} --force"
        " 2> {log:q}"
