# One network a run, then the best learning rate of each cell.
def training_flags(run):
    dataset = config["datasets"][run.dataset]
    return flags({**config["training"], "epochs": dataset["epochs"]})


rule train:
    input:
        script="workflow/scripts/train.py",
        code=code(
            "training",
            "networks",
            "data",
            "curvature/halving",
            "curvature/losses",
            "runs",
            "seeds",
            "schedules",
            "described",
            "checkpoints",
            "publishing",
            "devices",
        ),
        data=lambda w: f"resources/{Run.from_path(w.run).dataset}.safetensors",
    output:
        model=f"{RESULTS}/runs/{{run}}/model.safetensors",
        history=f"{RESULTS}/runs/{{run}}/history.parquet",
        record=f"{RESULTS}/runs/{{run}}/record.json",
        checkpoints=[
            f"{RESULTS}/runs/{{run}}/epoch{epoch}.safetensors" for epoch in config["training"]["checkpoint_epochs"]
        ],
    log:
        f"{LOGS}/train/{{run}}.log",
    benchmark:
        f"{LOGS}/benchmarks/train/{{run}}.tsv"
    threads: THREADS_PER_JOB
    resources:
        **needs(mem_mb=8000, minutes=60, shares_gpu=True),
    params:
        settings=lambda w: training_flags(Run.from_path(w.run)),
        device=config["device"],
        folder=lambda w, output: os.path.dirname(output.model),
    message:
        "Training {wildcards.run}"
    shell:
        "python {input.script} {wildcards.run} --data {input.data} {params.settings}"
        " --device {params.device} --jobs-per-gpu {JOBS_PER_GPU} --threads {threads} --output {params.folder}"
        " --log {log}"


def runs_of_cell(cell):
    return {**CELLS, **FEDERATED_CELLS}[cell]


rule select_learning_rate:
    input:
        script="workflow/scripts/select_learning_rate.py",
        code=code("training/selection"),
        records=lambda w: [f"{RESULTS}/runs/{run.path}/record.json" for run in runs_of_cell(w.cell)],
        models=lambda w: [f"{RESULTS}/runs/{run.path}/model.safetensors" for run in runs_of_cell(w.cell)],
        group=lambda w: group_records(w.cell),
    output:
        selection=f"{RESULTS}/selected/{{cell}}/selection.json",
        model=f"{RESULTS}/selected/{{cell}}/model.safetensors",
    log:
        f"{LOGS}/select_learning_rate/{{cell}}.log",
    localrule: True
    params:
        group=lambda w, input: shlex.join(["--group", *input.group]) if input.group else "",
    message:
        "Selecting the learning rate of {wildcards.cell}"
    shell:
        "python {input.script} {input.records} {params.group} --selection {output.selection}"
        " --model {output.model} --log {log}"


rule models:
    input:
        [f"{RESULTS}/selected/{cell}/selection.json" for cell in CELLS],
    localrule: True
