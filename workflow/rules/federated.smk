# Networks trained by clients and a server, and the Hessians of what they kept on their way.
FEDERATION = config["federation"]
FEDERATED_FILES = ["model.safetensors", "rounds.parquet", "checkpoints.safetensors", "record.json"]
IN_GROUPS = FEDERATION["runs_per_job"] == "group"
FEDERATED_LABELS = "|".join(re.escape(label) for label in sorted({run.trainer for run in FEDERATED_RUNS}))
# What follows the wildcard `federated` in the paths of a job's runs: the rates and seeds of a group, or nothing.
OF_JOB = (
    [run.path.removeprefix(group) for group, runs in list(GROUPS.items())[:1] for run in runs] if IN_GROUPS else [""]
)
STAGES["federate"] = "groups of federated trainings" if IN_GROUPS else "federated trainings"


def federated_flags():
    settings = {key: value for key, value in settings_of(FEDERATION).items() if key != "fetch_masking"}
    kept = {key: FEDERATION[key] for key in ("checkpoint_rounds", "checkpoint_losses")}
    return flags({**settings, **kept, "no_fetch_masking": not FEDERATION["fetch_masking"]})


rule federate:
    input:
        script="workflow/scripts/federate.py",
        code=code(
            "federated",
            "federated/methods",
            "publishing",
            "linalg/count_sketch",
            "linalg/hashing",
            "linalg/largest",
            "linalg/vectors",
            "networks",
            "data",
            "curvature/halving",
            "curvature/losses",
            "runs",
            "trainers",
            "seeds",
            "schedules",
            "described",
            "checkpoints",
            "trajectories",
            "devices",
        ),
        data=lambda w: f"resources/{w.federated.partition('/')[0]}.safetensors",
    output:
        [f"{RESULTS}/runs/{{federated}}{run}/{file}" for run in OF_JOB for file in FEDERATED_FILES],
    log:
        f"{LOGS}/federate/{{federated}}.log",
    benchmark:
        f"{LOGS}/benchmarks/federate/{{federated}}.tsv"
    wildcard_constraints:
        federated=rf"[\w.:+/-]+/(?:{FEDERATED_LABELS})" + ("" if IN_GROUPS else r"(?:/lr[\w.+-]+/seed[0-9]+)"),
    threads: THREADS_PER_JOB
    resources:
        **needs(mem_mb=16000, minutes=120, shares_gpu=True),
    params:
        runs=lambda w: [w.federated + run for run in OF_JOB],
        settings=federated_flags(),
        device=config["device"],
    message:
        "Training {wildcards.federated}"
    shell:
        "python {input.script} {params.runs} --data {input.data} {params.settings}"
        " --device {params.device} --jobs-per-gpu {JOBS_PER_GPU} --threads {threads} --output {RESULTS}/runs --log {log}"


CHECKPOINT_TABLES = ["curvature", "density", "eigenvalues"]
# Of method paper's settings these alone mean the same to method fast, by which checkpoints are measured.
SHARED_SETTINGS = ["batch_size", "memory_gib", "tf32", "grid_points"]
CHECKPOINT_SPECTRA = [
    f"{RESULTS}/checkpoint_spectra/{cell}"
    for cell, runs in FEDERATED_CELLS.items()
    if runs[0].trainer in spectra_of(FEDERATION)
]


def checkpoint_spectrum_flags(cell):
    given = config["spectrum"]
    names = (
        set(given) - {"splits", "operators", "method", "kpm_moments", "processes"}
        if given["method"] == "fast"
        else SHARED_SETTINGS
    )
    settings = {key: given[key] for key in given if key in names}
    dataset = FEDERATION["datasets"][Run.from_path(cell).dataset]
    of_data = {"splits": given["splits"], "test_examples_per_class": dataset["test_examples_per_class"]}
    return flags({**settings, **of_data, "deflation_rank": "classes"})


rule checkpoint_spectra:
    input:
        script="workflow/scripts/checkpoint_spectra.py",
        code=code(
            "curvature",
            "linalg",
            "networks",
            "data",
            "runs",
            "trainers",
            "seeds",
            "checkpoints",
            "devices",
            "trajectories",
            "training/selection",
        ),
        records=lambda w: group_records(w.cell),
        checkpoints=lambda w: [f"{RESULTS}/runs/{run.path}/checkpoints.safetensors" for run in FEDERATED_CELLS[w.cell]],
        data=lambda w: f"resources/{Run.from_path(w.cell).dataset}.safetensors",
    output:
        **{table: f"{RESULTS}/checkpoint_spectra/{{cell}}/{table}.parquet" for table in CHECKPOINT_TABLES},
        record=f"{RESULTS}/checkpoint_spectra/{{cell}}/record.json",
    log:
        f"{LOGS}/checkpoint_spectra/{{cell}}.log",
    benchmark:
        f"{LOGS}/benchmarks/checkpoint_spectra/{{cell}}.tsv"
    threads: THREADS_PER_JOB
    resources:
        **needs(mem_mb=16000, minutes=120),
    params:
        settings=lambda w: checkpoint_spectrum_flags(w.cell),
        device=config["device"],
        folder=lambda w, output: os.path.dirname(output.record),
    message:
        "Hessians along the training of {wildcards.cell}"
    shell:
        "python {input.script} {wildcards.cell} --records {input.records} --runs {RESULTS}/runs --data {input.data}"
        " {params.settings} --device {params.device} --threads {threads} --output {params.folder} --log {log}"


rule federated:
    input:
        [f"{RESULTS}/runs/{run.path}/record.json" for run in FEDERATED_RUNS],
    localrule: True
