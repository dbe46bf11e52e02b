# Images: read or downloaded once, padded to 32x32. Local, since compute nodes often have no network.
# Data are shared by profiles: only those that an extension reads depend on it.
CODE_OF_DATA = {
    extended: code("data", "seeds", extensions=tuple(EXTENSIONS) if extended else ()) for extended in (0, 1)
}


rule prepare_data:
    input:
        script="workflow/scripts/prepare_data.py",
        code=lambda w: CODE_OF_DATA[w.dataset.partition("-")[0] in registered("dataset")],
    output:
        data="resources/{dataset}.safetensors",
    log:
        "logs/prepare_data/{dataset}.log",
    localrule: True
    resources:
        download=1,
    params:
        folder=config["data_folder"],
    message:
        "Preparing {wildcards.dataset}"
    shell:
        "python {input.script} {wildcards.dataset} --folder {params.folder:q} --output {output.data} --log {log}"


rule data:
    input:
        expand("resources/{dataset}.safetensors", dataset=datasets_of(config)),
    localrule: True
