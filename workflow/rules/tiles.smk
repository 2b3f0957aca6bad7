# Training tiles: one shard per event file or frame, several files per job, and one manifest per wing.


rule tiles_camera:
    input:
        products=lambda wildcards: product_receipt("camera", wildcards.batch),
        usable=lambda wildcards: known_usable("camera", wildcards.batch),
        sources=sources("tiles_camera"),
    output:
        receipt=receipt("tiles_camera"),
    log:
        f"{RUN}/logs/tiles_camera/{{batch}}.log",
    benchmark:
        f"{RUN}/benchmarks/tiles_camera/{{batch}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: 1
    resources:
        mem_mb=grown(1500),  # measured: 300 MB
        runtime=minutes(10, of_file=10),  # 1 to 30 s
    params:
        many=MANY_SCRIPT,
        config=CONFIG_FILE,
        settings=settings(tiles.READS_CAMERA),
        files=items("camera"),
        folder=f"{RUN}/tiles/camera",
        products=verbatim(f"{RUN}/tiles/camera/{{name}}.tiles.h5"),
    message:
        "Make camera tiles: {wildcards.batch}"
    shell:
        "python {params.many:q} --receipt {output.receipt:q} --settings {params.settings:q} --sources {input.sources:q}"
        " --items {params.files:q} --products {params.products:q}"
        " -- tiles {{value}} --config {params.config:q} --out {params.folder:q} --force 2> {log:q}"


if not PAIRED:

    rule tiles_sky:
        input:
            products=lambda wildcards: product_receipt("sky", wildcards.batch),
            usable=lambda wildcards: known_usable("sky", wildcards.batch),
            sources=sources("tiles_sky"),
        output:
            receipt=receipt("tiles_sky"),
        log:
            f"{RUN}/logs/tiles_sky/{{batch}}.log",
        benchmark:
            f"{RUN}/benchmarks/tiles_sky/{{batch}}.tsv"
        conda:
            "../envs/lightpool.yaml"
        threads: 1
        resources:
            mem_mb=grown(1500),  # measured: 90 MB for 512 x 512 px
            runtime=minutes(10, of_file=10),  # 1 to 30 s
        params:
            many=MANY_SCRIPT,
            config=CONFIG_FILE,
            settings=settings(tiles.READS_SKY),
            files=items("sky"),
            folder=f"{RUN}/tiles/sky",
            products=verbatim(f"{RUN}/tiles/sky/{{name}}.tiles.h5"),
        message:
            "Make sky tiles: {wildcards.batch}"
        shell:
            "python {params.many:q} --receipt {output.receipt:q} --settings {params.settings:q} --sources {input.sources:q}"
            " --items {params.files:q} --products {params.products:q}"
            " -- tiles {{value}} --config {params.config:q} --out {params.folder:q} --force 2> {log:q}"

else:

    # Pairs need all frames of a field at once, and only the frames tell how many pairs there are.
    rule tiles_pairs:
        input:
            products=lambda wildcards: receipts("ingest_sky", names_of("sky")),
            usable=lambda wildcards: known_usable("sky"),
            sources=sources("tiles_sky"),
        output:
            folder=directory(f"{RUN}/tiles/sky"),
        log:
            f"{RUN}/logs/tiles_pairs.log",
        benchmark:
            f"{RUN}/benchmarks/tiles_pairs.tsv"
        conda:
            "../envs/lightpool.yaml"
        threads: 1
        resources:
            mem_mb=grown(4000),
            runtime=minutes(120),
        params:
            config=CONFIG_FILE,
            frames=lambda wildcards: [product_file("sky", name) for name in names_of("sky")],
            settings=settings(tiles.READS_SKY),
        message:
            "Make pairs of tiles of all frames"
        shell:
            "lightpool tiles {params.frames:q} --config {params.config:q} --out {output.folder:q} --force 2> {log:q}"


rule manifest_part:
    input:
        shards=lambda wildcards: receipts(
            f"tiles_{wildcards.wing}", parts_of(names_of(wildcards.wing))[wildcards.part]
        ),
        usable=lambda wildcards: known_usable(wildcards.wing),
        sources=sources("manifest"),
    output:
        manifest=f"{RUN}/tiles/{{wing}}_part_{{part}}.manifest.json",
        index=f"{RUN}/tiles/{{wing}}_part_{{part}}.manifest.index.h5",
    log:
        f"{RUN}/logs/manifest/{{wing}}_part_{{part}}.log",
    benchmark:
        f"{RUN}/benchmarks/manifest/{{wing}}_part_{{part}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: 1
    resources:
        mem_mb=grown(1500),  # measured: 100 MB
        runtime=minutes(60),  # 11 ms for a shard, and 1 s for 2 GB of them
    params:
        config=CONFIG_FILE,
        settings=settings(manifest.READS),
        shards=lambda wildcards: [
            f"{RUN}/tiles/{wildcards.wing}/{name}.tiles.h5"
            for name in parts_of(names_of(wildcards.wing))[wildcards.part]
        ],
    message:
        "Describe the {wildcards.wing} tiles, part {wildcards.part}"
    shell:
        "lightpool manifest {params.shards:q} --config {params.config:q} --out {output.manifest:q} --force 2> {log:q}"


rule manifest:
    input:
        shards=lambda wildcards: described_by(wildcards.wing),
        usable=lambda wildcards: known_usable(wildcards.wing),
        sources=sources("manifest"),
    output:
        manifest=f"{RUN}/tiles/{{wing}}.manifest.json",
        index=f"{RUN}/tiles/{{wing}}.manifest.index.h5",
    log:
        f"{RUN}/logs/manifest/{{wing}}.log",
    conda:
        "../envs/lightpool.yaml"
    params:
        config=CONFIG_FILE,
        settings=settings(manifest.READS),
        shards=lambda wildcards: described(wildcards.wing),
        pattern=lambda wildcards: (f"{os.sep}*.tiles.h5" if wildcards.wing == "sky" and PAIRED else ""),
    message:
        "Describe the {wildcards.wing} tiles"
    shell:
        "lightpool manifest {params.shards:q}{params.pattern} --config {params.config:q} --out {output.manifest:q}"
        " --force 2> {log:q}"
