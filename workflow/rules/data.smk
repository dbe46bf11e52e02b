# Images: read or downloaded once, padded to 32x32. Local, since compute nodes often have no network.
rule prepare_data:
    localrule: True
    input:
        script="workflow/scripts/prepare_data.py",
        code=code("data", "seeds"),
    output:
        data="resources/{dataset}.safetensors",
    log:
        "logs/prepare_data/{dataset}.log",
    resources:
        download=1,
    params:
        folder=config["data_folder"],
    message:
        "Preparing {wildcards.dataset}"
    shell:
        "python {input.script} {wildcards.dataset} --folder {params.folder:q} --output {output.data} --log {log}"


rule data:
    localrule: True
    input:
        expand("resources/{dataset}.safetensors", dataset=datasets_of(config)),
