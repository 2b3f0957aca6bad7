# Simulated data. A job makes one run or more (`files_per_job`).


rule simulate_showers:
    input:
        sources=sources("simulate_showers"),
    output:
        receipt=receipt("simulate_showers"),
    log:
        f"{RUN}/logs/simulate_showers/{{batch}}.log",
    benchmark:
        f"{RUN}/benchmarks/simulate_showers/{{batch}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: 1
    resources:
        mem_mb=grown(1500),  # measured: 330 to 580 MB
        runtime=minutes(10, of_file=20),  # 7 to 40 s for runs of the examples
    params:
        many=MANY_SCRIPT,
        config=CONFIG_FILE,
        settings=settings(simulate_showers.READS),
        files=lambda wildcards: [
            f"{name}={int(name.rpartition('_')[2])}" for name in SIMULATED["camera"][wildcards.batch]
        ],
        products=verbatim(f"{RUN}/raw/{{name}}.dl1.h5"),
    message:
        "Simulate showers: {wildcards.batch}"
    shell:
        "python {params.many:q} --receipt {output.receipt:q} --settings {params.settings:q} --sources {input.sources:q}"
        " --items {params.files:q} --products {params.products:q}"
        " -- simulate showers --config {params.config:q} --run {{value}} --out {params.products:q} --force"
        " 2> {log:q}"


rule simulate_sky:
    input:
        sources=sources("simulate_sky"),
    output:
        receipt=receipt("simulate_sky"),
    log:
        f"{RUN}/logs/simulate_sky/{{batch}}.log",
    benchmark:
        f"{RUN}/benchmarks/simulate_sky/{{batch}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: 1
    resources:
        mem_mb=grown(1500),  # measured: 120 MB for 512 x 512 px
        runtime=minutes(10, of_file=5),  # 2 s
    params:
        many=MANY_SCRIPT,
        config=CONFIG_FILE,
        settings=settings(simulate_sky.READS),
        files=lambda wildcards: [
            f"{name}={int(name.rpartition('_')[2])}" for name in SIMULATED["sky"][wildcards.batch]
        ],
        frame=verbatim(f"{RUN}/raw/{{name}}.fits"),
        products=verbatim(f"{RUN}/raw/{{name}}.fits", f"{RUN}/raw/{{name}}.truth.fits"),
    message:
        "Simulate sky frames: {wildcards.batch}"
    shell:
        "python {params.many:q} --receipt {output.receipt:q} --settings {params.settings:q} --sources {input.sources:q}"
        " --items {params.files:q} --products {params.products:q}"
        " -- simulate sky --config {params.config:q} --run {{value}} --out {params.frame:q} --force 2> {log:q}"
