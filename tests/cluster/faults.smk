# Jobs that faults happen to: what is tested is what the profile makes of them.
rule all:
    input:
        expand("made/{name}", name=config["names"].split(",")),


rule wait:
    output:
        "made/wait_{number}",
    resources:
        mem_mb=lambda wildcards, attempt: 1500 * attempt,
        runtime=lambda wildcards, attempt: 2 * attempt,
    shell:
        "echo attempt >> tries_{wildcards.number} && sleep {config[seconds]} && touch {output}"


# Takes 2,200 MB: too much for the first attempt.
rule hungry:
    output:
        "made/hungry",
    resources:
        mem_mb=lambda wildcards, attempt: 1500 * attempt,
        runtime=lambda wildcards, attempt: 5 * attempt,
    shell:
        "echo {resources.mem_mb} >> memory && "
        "python -c 'import time; block = bytearray(2200 << 20); block[::4096] = bytes(len(block[::4096])); time.sleep(15)'"
        " && touch {output}"


# Takes 100 s: too long for the first attempt.
rule lengthy:
    output:
        "made/lengthy",
    resources:
        mem_mb=1500,
        runtime=lambda wildcards, attempt: 1 if attempt == 1 else 10,
    shell:
        "echo {resources.runtime} >> minutes && sleep 100 && touch {output}"
