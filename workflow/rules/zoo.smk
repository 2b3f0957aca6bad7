# Many networks on the same camera tiles, and one page about them. Every training and evaluation is one job with a folder
# of its own. A network that cannot be trained leaves the reason in its folder, and the rest goes on.


rule zoo_train:
    input:
        manifest=f"{RUN}/tiles/camera.manifest.json",
        sources=sources("train"),
    output:
        config=f"{zoo_run('{task}', '{label}', '{repeat}')}/config.yaml",
        bundle=directory(f"{zoo_run('{task}', '{label}', '{repeat}')}/bundle"),
    log:
        f"{RUN}/logs/zoo_train/{{task}}/{{label}}_{{repeat}}.log",
    benchmark:
        f"{RUN}/benchmarks/zoo_train/{{task}}_{{label}}_{{repeat}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: CFG.threads
    resources:
        gpu=GPUS,
        mem_mb=grown(4000),
        runtime=minutes(240),
    params:
        config=CONFIG_FILE,
        script=CHECKOUT / "workflow/scripts/resolve_config.py",
        settings=zoo_settings,
    message:
        "Train {wildcards.label} for {wildcards.task} (training {wildcards.repeat})"
    shell:
        # Exit code 2 is the network's or its settings' fault; anything else stops the job.
        "python {params.script:q} --entry {wildcards.label:q} --repeat {wildcards.repeat} --out {output.config:q}"
        " {params.config:q} 2> {log:q}"
        " && {{ lightpool train {input.manifest:q} --config {output.config:q} --network {wildcards.task}"
        " --out {output.bundle:q} --resume --force --threads {threads} 2>> {log:q} || [ $? -eq 2 ]; }}"
        " && {{ [ -f {output.bundle:q}/card.json ]"
        " || {{ mkdir -p {output.bundle:q} && tail -n 1 {log:q} > {output.bundle:q}/failed.txt; }}; }}"


rule zoo_evaluate:
    input:
        bundle=f"{zoo_run('{task}', '{label}', '{repeat}')}/bundle",
        manifest=f"{RUN}/tiles/camera.manifest.json",
        sources=sources("evaluate"),
    output:
        folder=directory(f"{zoo_run('{task}', '{label}', '{repeat}')}/evaluation"),
    log:
        f"{RUN}/logs/zoo_evaluate/{{task}}/{{label}}_{{repeat}}.log",
    benchmark:
        f"{RUN}/benchmarks/zoo_evaluate/{{task}}_{{label}}_{{repeat}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: CFG.threads
    resources:
        gpu=GPUS,
        mem_mb=grown(4000),
        runtime=minutes(60),
    params:
        # Not the training's own: all networks are judged with the same seed, beside the same forest.
        config=CONFIG_FILE,
        settings=settings(evaluate.READS),
    message:
        "Evaluate {wildcards.label} for {wildcards.task} (training {wildcards.repeat})"
    shell:
        "if [ -f {input.bundle:q}/card.json ];"
        " then lightpool evaluate {input.manifest:q} --config {params.config:q} --bundle {input.bundle:q}"
        " --out {output.folder:q} --force --threads {threads} 2> {log:q};"
        " else mkdir -p {output.folder:q}; fi"


checkpoint zoo_best:
    input:
        bundles=lambda wildcards: [f"{zoo_run(wildcards.task, label)}/bundle" for label in ZOO],
    output:
        best=f"{RUN}/zoo/{{task}}/best.json",
    log:
        f"{RUN}/logs/zoo_best/{{task}}.log",
    conda:
        "../envs/lightpool.yaml"
    params:
        script=CHECKOUT / "workflow/scripts/best_of_zoo.py",
        n=CFG.zoo.best,
    message:
        "Choose the networks for {wildcards.task} that are trained with further seeds"
    shell:
        "python {params.script:q} --task {wildcards.task} --best {params.n} --out {output.best:q} {input.bundles:q}"
        " 2> {log:q}"


rule compare:
    input:
        experiment=f"{RUN}/config.yaml",
        evaluations=zoo_evaluations,
        sources=sources("compare"),
    output:
        page=f"{RUN}/comparison.html",
        rows=f"{RUN}/comparison.json",
    log:
        f"{RUN}/logs/compare.log",
    conda:
        "../envs/lightpool.yaml"
    params:
        folder=lambda wildcards, output: os.path.dirname(output.page),
    message:
        "Write the comparison"
    shell:
        "lightpool compare {params.folder:q} --out {output.page:q} --force 2> {log:q}"
