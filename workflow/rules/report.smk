# One page that says what was done and how well.


rule experiment:
    output:
        resolved=f"{RUN}/config.yaml",
    log:
        f"{RUN}/logs/experiment.log",
    conda:
        "../envs/lightpool.yaml"
    params:
        config=CONFIG_FILE,
        script=CHECKOUT / "workflow/scripts/resolve_config.py",
        settings=digest_of(CFG, tuple(type(CFG).model_fields)),
    message:
        "Write down the experiment with all its defaults"
    shell:
        "python {params.script:q} --out {output.resolved:q} {params.config:q} 2> {log:q}"


rule validate_showers:
    input:
        sources=sources("validate_showers"),
    output:
        folder=directory(f"{RUN}/validation/showers"),
    log:
        f"{RUN}/logs/validate_showers.log",
    benchmark:
        f"{RUN}/benchmarks/validate_showers.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: CFG.threads
    resources:
        mem_mb=grown(4000),
        runtime=minutes(60),
    params:
        data=VALIDATION_DATA,
    message:
        "Compare the shower simulation with its references"
    shell:
        "lightpool validate showers --out {output.folder:q} {params.data:q} --jobs {threads} --force 2> {log:q}"


rule report:
    input:
        experiment=f"{RUN}/config.yaml",
        evaluations=expand("{run}/evaluation/{network}", run=RUN, network=NETWORKS),
        statuses=expand(
            "{run}/status/ingest_{wing}.json",
            run=RUN,
            wing=[wing for wing in RAW if RAW[wing]],
        ),
        predictions=lambda wildcards: predictions(),
        irf=[f"{RUN}/irf"] if CFG.irf.n_runs else [],
        validation=[f"{RUN}/validation/showers"] if CFG.report.validate_showers else [],
        sources=sources("report"),
    output:
        page=f"{RUN}/report.html",
    log:
        f"{RUN}/logs/report.log",
    conda:
        "../envs/lightpool.yaml"
    params:
        folder=lambda wildcards, output: os.path.dirname(output.page),
    message:
        "Write the report"
    shell:
        "lightpool report {params.folder:q} --out {output.page:q} --force 2> {log:q}"
