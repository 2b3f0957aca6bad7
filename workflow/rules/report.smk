# One page that says what was done and how well.


rule report:
    input:
        evaluations=expand("{run}/evaluation/{task}/metrics.json", run=RUN, task=TASKS),
        statuses=expand(
            "{run}/status/ingest_{wing}.json",
            run=RUN,
            wing=[wing for wing in RAW if RAW[wing]],
        ),
        predictions=lambda wildcards: predictions(),
        sources=sources("report"),
    output:
        page=f"{RUN}/report.html",
    log:
        f"{RUN}/logs/report.log",
    conda:
        "../envs/lightpool.yaml"
    params:
        settings=settings("report", "name", "description"),
        folder=lambda wildcards, output: os.path.dirname(output.page),
    message:
        "Write the report"
    shell:
        "lightpool report {params.folder:q} --out {output.page:q} --force 2> {log:q}"
