# The study of Hessian based analysis of SGD for Deep Nets (Li et al. 2020): measurements along trainings, tables, figures.
DYNAMICS_STUDY = f"{RESULTS}/{DYNAMICS}"
DYNAMICS_RAW = ["eigenvalues", "curvature", "overlaps", "angles", "loss_changes", "bounds"]
DYNAMICS_TABLES = [*DYNAMICS_RAW, "runs", "bound_correlations", "coverage"]
DYNAMICS_SETTINGS = [
    "exact_up_to",
    "samples",
    "bound_probability",
    "sigmas",
    "confidence",
    "posterior_samples",
    "probes",
    "products",
]


def dynamics_flags(runs):
    section = config[DYNAMICS]
    settings = {key: section[key] for key in DYNAMICS_SETTINGS}
    return flags({**settings, "top": top_of(section, runs[0].dataset), "follow": followed_size(config, runs[0])})


rule sgd_dynamics_measures:
    input:
        script="workflow/scripts/sgd_dynamics.py",
        code=code(
            "dynamics",
            "curvature",
            "linalg",
            "networks",
            "data",
            "runs",
            "trainers",
            "seeds",
            "checkpoints",
            "trajectories",
            "described",
            "devices",
            "waiting_tables",
        ),
        trajectories=lambda w: [
            f"{DYNAMICS_STUDY}/runs/{run.path}/{file}"
            for run in TRAJECTORY_JOBS[DYNAMICS][w.job]
            for file in ("trajectory.safetensors", "record.json")
        ],
        data=lambda w: f"resources/{w.job.partition('/')[0]}.safetensors",
    output:
        **{table: f"{DYNAMICS_STUDY}/measured/{{job}}/{table}.parquet" for table in DYNAMICS_RAW},
        record=f"{DYNAMICS_STUDY}/measured/{{job}}/record.json",
    log:
        f"{LOGS}/sgd_dynamics/{{job}}.log",
    benchmark:
        f"{LOGS}/benchmarks/sgd_dynamics/{{job}}.tsv"
    wildcard_constraints:
        job="|".join(map(re.escape, TRAJECTORY_JOBS[DYNAMICS])),
    threads: THREADS_PER_JOB
    resources:
        **needs(mem_mb=8000, minutes=120),
    params:
        runs=lambda w: [run.path for run in TRAJECTORY_JOBS[DYNAMICS][w.job]],
        settings=lambda w: dynamics_flags(TRAJECTORY_JOBS[DYNAMICS][w.job]),
        test=lambda w: test_size_flag(DYNAMICS, w.job.partition("/")[0]),
        device=config["device"],
        folder=lambda w, output: os.path.dirname(output.record),
    message:
        "Measuring along the trainings of {wildcards.job}"
    shell:
        "python {input.script} {params.runs} --trajectories {DYNAMICS_STUDY}/runs --data {input.data} {params.settings}"
        " {params.test} --device {params.device} --threads {threads} --output {params.folder} --log {log}"


def dynamics_figures():
    """(folder, file name) to what the plotting script needs: every figure that this profile's runs can fill."""
    figures, settings_of_runs = {}, {}
    for run in TRAJECTORY_RUNS[DYNAMICS]:
        setting = run.label_noise, run.network_label, run.trainer, run.examples_per_class
        settings_of_runs.setdefault(run.dataset, set()).add(setting)
    for run in TRAJECTORY_RUNS[DYNAMICS]:
        of_network = {"dataset": run.dataset, "network": run.network_label}
        folder = f"{run.dataset}-{run.network_label}"
        is_first = is_first_network(DYNAMICS, run)
        # Further networks are there for the bound; what else they show stands in the tables.
        for figure in ("eigenvalues", "overlap", *(("overlap_against_k", "angles") if is_first else ())):
            figures[folder, figure] = f"{figure} {flags(of_network)}"
        for figure in ("loss_change", "decrease") if is_first else ():
            noise = {**of_network, "label_noise": run.label_noise}
            figures[folder, f"{figure}-noise{number_text(run.label_noise)}"] = f"{figure} {flags(noise)}"
        figures[run.dataset, "bound_against_error"] = f"bound_against_error {flags({'dataset': run.dataset})}"
        if len(settings_of_runs[run.dataset]) > 1:  # else there is nothing to hold the bound against
            figures[run.dataset, "bound"] = f"bound {flags({'dataset': run.dataset})}"
    return figures


rule sgd_dynamics_tables:
    input:
        script="workflow/scripts/tabulate_sgd_dynamics.py",
        code=code("studies", "runs", "trainers"),
        records=[f"{DYNAMICS_STUDY}/runs/{run.path}/record.json" for run in TRAJECTORY_RUNS[DYNAMICS]],
        measured=expand(
            f"{DYNAMICS_STUDY}/measured/{{job}}/{{table}}.parquet", table=DYNAMICS_RAW, job=TRAJECTORY_JOBS[DYNAMICS]
        ),
    output:
        expand(f"{DYNAMICS_STUDY}/{{table}}.parquet", table=DYNAMICS_TABLES),
    log:
        f"{LOGS}/sgd_dynamics_tables.log",
    localrule: True
    params:
        measured=lambda w, input: flags(
            {table: [file for file in input.measured if Path(file).stem == table] for table in DYNAMICS_RAW}
        ),
    message:
        "Collecting all measurements into the study's tables"
    shell:
        "python {input.script} {params.measured} --records {input.records} --output {DYNAMICS_STUDY} --log {log}"


SHOWN[DYNAMICS] = {
    "title": "SGD dynamics",
    "figures": dynamics_figures(),
    "tables": list(rules.sgd_dynamics_tables.output),
}
