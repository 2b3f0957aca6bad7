# Training tiles: one shard per event file or frame, and one manifest per wing.


rule tiles_camera:
    input:
        product=lambda wildcards: product("camera", wildcards.name),
        sources=sources("tiles_camera"),
    output:
        shard=f"{RUN}/tiles/camera/{{name}}.tiles.h5",
    log:
        f"{RUN}/logs/tiles_camera/{{name}}.log",
    benchmark:
        f"{RUN}/benchmarks/tiles_camera/{{name}}.tsv"
    conda:
        "../envs/lightpool.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        config=CONFIG_FILE,
        events=lambda wildcards: product_file("camera", wildcards.name),
        settings=settings(tiles.READS_CAMERA),
        folder=lambda wildcards, output: os.path.dirname(output.shard),
    message:
        "Make camera tiles of {wildcards.name}"
    shell:
        "lightpool tiles {params.events:q} --config {params.config:q} --out {params.folder:q} --force 2> {log:q}"


if not PAIRED:

    rule tiles_sky:
        input:
            product=lambda wildcards: product("sky", wildcards.name),
            sources=sources("tiles_sky"),
        output:
            shard=f"{RUN}/tiles/sky/{{name}}.tiles.h5",
        log:
            f"{RUN}/logs/tiles_sky/{{name}}.log",
        benchmark:
            f"{RUN}/benchmarks/tiles_sky/{{name}}.tsv"
        conda:
            "../envs/lightpool.yaml"
        threads: 1
        resources:
            mem_mb=2000,
            runtime=60,
        params:
            config=CONFIG_FILE,
            frame=lambda wildcards: product_file("sky", wildcards.name),
            settings=settings(tiles.READS_SKY),
            folder=lambda wildcards, output: os.path.dirname(output.shard),
        message:
            "Make sky tiles of {wildcards.name}"
        shell:
            "lightpool tiles {params.frame:q} --config {params.config:q} --out {params.folder:q} --force 2> {log:q}"

else:

    # Pairs need all frames of a field at once, and only the frames tell how many pairs there are.
    rule tiles_pairs:
        input:
            products=lambda wildcards: [product("sky", name) for name in names_of("sky")],
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
            mem_mb=4000,
            runtime=120,
        params:
            config=CONFIG_FILE,
            frames=lambda wildcards: [product_file("sky", name) for name in names_of("sky")],
            settings=settings(tiles.READS_SKY),
        message:
            "Make pairs of tiles of all frames"
        shell:
            "lightpool tiles {params.frames:q} --config {params.config:q} --out {output.folder:q} --force 2> {log:q}"


rule manifest:
    input:
        shards=lambda wildcards: shards_of(wildcards.wing),
        sources=sources("manifest"),
    output:
        manifest=f"{RUN}/tiles/{{wing}}.manifest.json",
    log:
        f"{RUN}/logs/manifest/{{wing}}.log",
    conda:
        "../envs/lightpool.yaml"
    params:
        config=CONFIG_FILE,
        settings=settings(manifest.READS),
        pattern=lambda wildcards: (f"{os.sep}*.tiles.h5" if wildcards.wing == "sky" and PAIRED else ""),
    message:
        "Describe the {wildcards.wing} tiles"
    shell:
        "lightpool manifest {input.shards:q}{params.pattern} --config {params.config:q} --out {output.manifest:q}"
        " --force 2> {log:q}"
