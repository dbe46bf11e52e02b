# The study of predictor Hessians along trainings (Shrivastava et al. 2024, Figures 2 to 24): spectra, tables, figures.
PREDICTOR_STUDY = f"{RESULTS}/{PREDICTOR}"
PREDICTOR_TABLES = ["kappa", "density", "kappa_over_time", "runs"]
PREDICTOR_RAW = ["kappa", "density"]
PREDICTOR_SETTINGS = [
    "examples", "estimators", "lanczos_steps", "start_vectors", "fast_steps", "fast_start_vectors", "top", "grid_points",
]  # fmt: skip
PREDICTOR_CODE = [
    "curvature", "linalg", "networks", "data", "runs", "trainers", "seeds", "checkpoints", "trajectories", "described",
    "training/selection", "training/selected_runs", "devices",
]  # fmt: skip


def predictor_flags():
    return flags({key: config[PREDICTOR][key] for key in PREDICTOR_SETTINGS})


# Groups of federated runs whose kept rounds are looked at: all rates and seeds of a trainer.
PREDICTOR_GROUPS = [group for group, runs in GROUPS.items() if runs[0].trainer in predictor_trainers_of(config)]


rule predictor_spectra:
    input:
        script="workflow/scripts/predictor_spectra.py",
        code=code(*PREDICTOR_CODE),
        trajectories=lambda w: [
            f"{PREDICTOR_STUDY}/runs/{run.path}/{file}"
            for run in TRAJECTORY_JOBS[PREDICTOR][w.job]
            for file in ("trajectory.safetensors", "record.json")
        ],
        data=lambda w: f"resources/{w.job.partition('/')[0]}.safetensors",
    output:
        **{table: f"{PREDICTOR_STUDY}/spectra/{{job}}/{table}.parquet" for table in PREDICTOR_RAW},
        record=f"{PREDICTOR_STUDY}/spectra/{{job}}/record.json",
    log:
        f"{LOGS}/predictor_spectra/{{job}}.log",
    benchmark:
        f"{LOGS}/benchmarks/predictor_spectra/{{job}}.tsv"
    wildcard_constraints:
        job="|".join(map(re.escape, TRAJECTORY_JOBS[PREDICTOR])),
    threads: THREADS_PER_JOB
    resources:
        **needs(mem_mb=8000, minutes=60),
    params:
        runs=lambda w: [run.path for run in TRAJECTORY_JOBS[PREDICTOR][w.job]],
        settings=predictor_flags(),
        epochs=flags({"epochs": config[PREDICTOR]["checkpoint_epochs"]}),
        device=config["device"],
        folder=lambda w, output: os.path.dirname(output.record),
    message:
        "Predictor Hessians along the trainings of {wildcards.job}"
    shell:
        "python {input.script} {params.runs} --trajectories {PREDICTOR_STUDY}/runs --data {input.data} {params.epochs}"
        " {params.settings} --device {params.device} --threads {threads} --output {params.folder} --log {log}"


rule federated_predictor_spectra:
    input:
        script="workflow/scripts/federated_predictor_spectra.py",
        code=code(*PREDICTOR_CODE),
        records=lambda w: [f"{RESULTS}/runs/{run.path}/record.json" for run in GROUPS[w.group]],
        checkpoints=lambda w: [f"{RESULTS}/runs/{run.path}/checkpoints.safetensors" for run in GROUPS[w.group]],
        data=lambda w: f"resources/{w.group.partition('/')[0]}.safetensors",
    output:
        **{table: f"{PREDICTOR_STUDY}/federated/{{group}}/{table}.parquet" for table in PREDICTOR_RAW},
        record=f"{PREDICTOR_STUDY}/federated/{{group}}/record.json",
    log:
        f"{LOGS}/federated_predictor_spectra/{{group}}.log",
    benchmark:
        f"{LOGS}/benchmarks/federated_predictor_spectra/{{group}}.tsv"
    wildcard_constraints:
        group="|".join(map(re.escape, PREDICTOR_GROUPS)) or "none",
    threads: THREADS_PER_JOB
    resources:
        **needs(mem_mb=8000, minutes=60),
    params:
        settings=predictor_flags(),
        device=config["device"],
        folder=lambda w, output: os.path.dirname(output.record),
    message:
        "Predictor Hessians along the rounds of {wildcards.group}"
    shell:
        "python {input.script} {wildcards.group} --records {input.records} --runs {RESULTS}/runs --data {input.data}"
        " {params.settings} --device {params.device} --threads {threads} --output {params.folder} --log {log}"


PREDICTOR_FOLDERS = [
    *(f"{PREDICTOR_STUDY}/spectra/{job}" for job in TRAJECTORY_JOBS[PREDICTOR]),
    *(f"{PREDICTOR_STUDY}/federated/{group}" for group in PREDICTOR_GROUPS),
]


def predictor_figures():
    """(folder, file name) to what the plotting script needs: every figure that this profile's runs can fill."""
    of_time = {
        "epochs": TRAJECTORY_RUNS[PREDICTOR],
        "rounds": [run for group in PREDICTOR_GROUPS for run in GROUPS[group]],
    }
    return {
        (f"{run.dataset}-{run.network_label}", f"{figure}_over_{time}"): (
            f"{figure}_over_{time} {flags({'dataset': run.dataset, 'network': run.network_label})}"
        )
        for time, runs in of_time.items()
        for run in runs
        for figure in ("density", "kappa")
    }


rule predictor_hessian_tables:
    input:
        script="workflow/scripts/tabulate_predictor_hessian.py",
        code=code(
            "studies",
            "runs",
            "trainers",
            "curvature/predictor_spectra",
            "curvature/predictor_estimators",
            "training/selection",
        ),
        kappa=expand("{folder}/kappa.parquet", folder=PREDICTOR_FOLDERS),
        density=expand("{folder}/density.parquet", folder=PREDICTOR_FOLDERS),
        records=[
            *(f"{PREDICTOR_STUDY}/runs/{run.path}/record.json" for run in TRAJECTORY_RUNS[PREDICTOR]),
            *(f"{RESULTS}/runs/{run.path}/record.json" for group in PREDICTOR_GROUPS for run in GROUPS[group]),
        ],
    output:
        expand(f"{PREDICTOR_STUDY}/{{table}}.parquet", table=PREDICTOR_TABLES),
    log:
        f"{LOGS}/predictor_hessian_tables.log",
    localrule: True
    message:
        "Collecting all predictor Hessians into the study's tables"
    shell:
        "python {input.script} --kappa {input.kappa} --density {input.density} --records {input.records}"
        " --output {PREDICTOR_STUDY} --log {log}"


SHOWN[PREDICTOR] = {
    "title": "Predictor Hessian",
    "figures": predictor_figures(),
    "tables": list(rules.predictor_hessian_tables.output),
}
