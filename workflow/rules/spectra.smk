# All spectra of one selected network on one split: Hessian, GGN and residual.
# Over several processes a spectrum is the same up to rounding: their number is no parameter that would ask for it anew.
PROCESSES = max(1, len(GPUS)) if config["spectrum"]["processes"] == "all" else config["spectrum"]["processes"]
SPECTRUM_TABLES = ["density", "ritz", "eigenvalues", "bounds", "sums"]


def spectrum_flags(cell):
    dataset = section_of(cell)["datasets"][Run.from_path(cell).dataset]
    settings = {key: value for key, value in config["spectrum"].items() if key not in ("splits", "processes")}
    return flags({**settings, "test_examples_per_class": dataset["test_examples_per_class"]})


rule spectrum:
    input:
        script="workflow/scripts/spectrum.py",
        code=code("linalg", "curvature", "networks", "data", "runs", "seeds", "checkpoints", "devices"),
        model=f"{RESULTS}/selected/{{cell}}/model.safetensors",
        data=lambda w: f"resources/{Run.from_path(w.cell).dataset}.safetensors",
    output:
        **{table: f"{RESULTS}/spectra/{{cell}}/{{split}}/{table}.parquet" for table in SPECTRUM_TABLES},
        record=f"{RESULTS}/spectra/{{cell}}/{{split}}/record.json",
    log:
        f"{LOGS}/spectrum/{{cell}}/{{split}}.log",
    benchmark:
        f"{LOGS}/benchmarks/spectrum/{{cell}}/{{split}}.tsv"
    threads: THREADS_PER_JOB * PROCESSES
    resources:
        **needs(mem_mb=16000 * PROCESSES, minutes=120, gpus=PROCESSES),
    params:
        settings=lambda w: spectrum_flags(w.cell),
        device=config["device"],
        folder=lambda w, output: os.path.dirname(output.record),
    message:
        "Spectra of {wildcards.cell} on its {wildcards.split} examples"
    shell:
        "python {input.script} {wildcards.cell} --split {wildcards.split} --model {input.model} --data {input.data}"
        " {params.settings} --device {params.device} --threads {threads} --processes {PROCESSES} --output {params.folder} --log {log}"


SPECTRA = expand(f"{RESULTS}/spectra/{{cell}}/{{split}}", cell=CELLS, split=config["spectrum"]["splits"])


rule spectra:
    input:
        expand("{folder}/record.json", folder=SPECTRA),
    localrule: True
