# The study of parameter magnitudes and Hessian eigenspaces (Fernandez et al. 2025): measurements, tables, figures.
EIGENSPACES_STUDY = f"{RESULTS}/{EIGENSPACES}"
EIGENSPACES_RAW = ["overlaps", "layers", "eigenvalues", "quality", "metrics", "stability"]
EIGENSPACES_SETTINGS = [
    "splits", "methods", "pairs", "measurements", "sketch_method", "passes", "probes", "exact_up_to", "ratios",
]  # fmt: skip
EIGENSPACES_CODE = [
    "eigenspaces", "curvature", "linalg", "networks", "data", "runs", "trainers", "seeds", "checkpoints", "trajectories",
    "described", "devices", "training/selection", "training/selected_runs",
    "waiting_tables",
]  # fmt: skip
# Groups of federated runs whose kept rounds are looked at: all rates and seeds of a trainer.
EIGENSPACES_GROUPS = [group for group, runs in GROUPS.items() if runs[0].trainer in eigenspace_trainers_of(config)]


def eigenspaces_flags(dataset, names):
    """Settings of the jobs on a data set, which may be one of the federation's that the section does not name."""
    section = with_dataset(config[EIGENSPACES], dataset)
    return flags({**{name: section[name] for name in names}, "kind": section["measurement_kind"]})


def hessian_size(settings, dataset):
    """Examples of each class over which Hessians are averaged, and those of which the test examples are the first."""
    own = config[EIGENSPACES]["datasets"]
    first = next(iter(own.values()))["hessian_examples_per_class"]
    of_test = settings["test_examples_per_class"]
    sizes = [size for size in (settings["examples_per_class"], of_test) if size != "all"]
    of_hessian = own[dataset]["hessian_examples_per_class"] if dataset in own else min([first, *sizes])
    return flags({"hessian_examples_per_class": of_hessian, "test_examples_per_class": of_test})


rule metric_study:
    input:
        script="workflow/scripts/metric_study.py",
        code=code(
            "eigenspaces/metric_study",
            "linalg/coordinate_subspaces",
            "linalg/grassmannian",
            "linalg/subspaces",
            "linalg/vectors",
            "seeds",
        ),
    output:
        f"{EIGENSPACES_STUDY}/metric_study/metric_study.parquet",
    log:
        f"{LOGS}/metric_study.log",
    benchmark:
        f"{LOGS}/benchmarks/metric_study.tsv"
    threads: 1
    resources:
        **needs(mem_mb=4000, minutes=60, gpus=0),
    params:
        settings=flags(config[EIGENSPACES]["metric_study"]),
    message:
        "Comparing metrics on random subspaces and masks"
    shell:
        "python {input.script} {params.settings} --output {output} --log {log}"


rule eigenspaces_measures:
    input:
        script="workflow/scripts/eigenspaces.py",
        code=code(*EIGENSPACES_CODE),
        trajectories=lambda w: [
            f"{EIGENSPACES_STUDY}/runs/{run.path}/{file}"
            for run in TRAJECTORY_JOBS[EIGENSPACES][w.job]
            for file in ("trajectory.safetensors", "record.json")
        ],
        data=lambda w: f"resources/{w.job.partition('/')[0]}.safetensors",
    output:
        **{table: f"{EIGENSPACES_STUDY}/measured/{{job}}/{table}.parquet" for table in EIGENSPACES_RAW},
        record=f"{EIGENSPACES_STUDY}/measured/{{job}}/record.json",
    log:
        f"{LOGS}/eigenspaces/{{job}}.log",
    benchmark:
        f"{LOGS}/benchmarks/eigenspaces/{{job}}.tsv"
    wildcard_constraints:
        job="|".join(map(re.escape, TRAJECTORY_JOBS[EIGENSPACES])),
    threads: THREADS_PER_JOB
    resources:
        **needs(mem_mb=16000, minutes=240),
    params:
        runs=lambda w: [run.path for run in TRAJECTORY_JOBS[EIGENSPACES][w.job]],
        settings=lambda w: eigenspaces_flags(
            Path(w.job).parts[0], [*EIGENSPACES_SETTINGS, "stability_steps", "stability_ratios"]
        ),
        steps=lambda w: flags({"steps": with_dataset(config[EIGENSPACES], Path(w.job).parts[0])["checkpoint_steps"]}),
        size=lambda w: hessian_size(config[EIGENSPACES]["datasets"][Path(w.job).parts[0]], Path(w.job).parts[0]),
        device=config["device"],
        folder=lambda w, output: os.path.dirname(output.record),
    message:
        "Masks and eigenspaces along the trainings of {wildcards.job}"
    shell:
        "python {input.script} {params.runs} --trajectories {EIGENSPACES_STUDY}/runs --data {input.data} {params.steps}"
        " {params.size} {params.settings} --device {params.device} --threads {threads} --output {params.folder} --log {log}"


rule federated_eigenspaces:
    input:
        script="workflow/scripts/federated_eigenspaces.py",
        code=code(*EIGENSPACES_CODE),
        records=lambda w: [f"{RESULTS}/runs/{run.path}/record.json" for run in GROUPS[w.group]],
        checkpoints=lambda w: [f"{RESULTS}/runs/{run.path}/checkpoints.safetensors" for run in GROUPS[w.group]],
        data=lambda w: f"resources/{w.group.partition('/')[0]}.safetensors",
    output:
        **{table: f"{EIGENSPACES_STUDY}/federated/{{group}}/{table}.parquet" for table in EIGENSPACES_RAW},
        record=f"{EIGENSPACES_STUDY}/federated/{{group}}/record.json",
    log:
        f"{LOGS}/federated_eigenspaces/{{group}}.log",
    benchmark:
        f"{LOGS}/benchmarks/federated_eigenspaces/{{group}}.tsv"
    wildcard_constraints:
        group="|".join(map(re.escape, EIGENSPACES_GROUPS)) or "none",
    threads: THREADS_PER_JOB
    resources:
        **needs(mem_mb=16000, minutes=240),
    params:
        settings=lambda w: eigenspaces_flags(Path(w.group).parts[0], EIGENSPACES_SETTINGS),
        size=lambda w: hessian_size(FEDERATION["datasets"][Path(w.group).parts[0]], Path(w.group).parts[0]),
        device=config["device"],
        folder=lambda w, output: os.path.dirname(output.record),
    message:
        "Masks and eigenspaces along the rounds of {wildcards.group}"
    shell:
        "python {input.script} {wildcards.group} --records {input.records} --runs {RESULTS}/runs --data {input.data}"
        " {params.size} {params.settings} --device {params.device} --threads {threads} --output {params.folder} --log {log}"


EIGENSPACES_FOLDERS = [
    *(f"{EIGENSPACES_STUDY}/measured/{job}" for job in TRAJECTORY_JOBS[EIGENSPACES]),
    *(f"{EIGENSPACES_STUDY}/federated/{group}" for group in EIGENSPACES_GROUPS),
]
EIGENSPACES_TABLES = [
    *EIGENSPACES_RAW, "metric_study", "runs", "overlap_summary", "shares_above", "stabilisation", "sketch_quality",
    "width_summary", "federated_summary",
]  # fmt: skip


def eigenspaces_figures():
    """(folder, file name) to what the plotting script needs: every figure that this profile's runs can fill."""
    names = [
        "overlap_over_steps",
        "overlap_at_k",
        "overlap_against_k",
        "times_chance",
        "masks",
        "metrics_over_steps",
        "layers",
    ]
    section, figures = config[EIGENSPACES], {}
    names += ["sketch_quality"] * bool({"sketched", "lanczos"} & set(section["methods"]))
    for run in TRAJECTORY_RUNS[EIGENSPACES]:
        of_network = {"dataset": run.dataset, "network": run.network_label}
        # Further networks are there for the sweep over their size; what else they show stands in the tables.
        compared = ["stability"] * bool(with_dataset(section, run.dataset)["stability_steps"])
        for name in [*names, *compared] if is_first_network(EIGENSPACES, run) else ():
            figures[f"{run.dataset}-{run.network_label}", name] = f"{name} {flags(of_network)}"
        several = len(section["datasets"][run.dataset]["networks"]) > 1
        for name in ("runtimes", *["width"] * several):
            figures[run.dataset, name] = f"{name} {flags({'dataset': run.dataset})}"
    for run in (run for group in EIGENSPACES_GROUPS for run in GROUPS[group]):
        of_network = {"dataset": run.dataset, "network": run.network_label}
        figures[f"{run.dataset}-{run.network_label}", "federated"] = f"federated {flags(of_network)}"
    dataset = next(iter(section["datasets"]))
    figures["metrics", "metric_study"] = f"metric_study {flags({'dataset': dataset})}"
    return figures


rule eigenspaces_tables:
    input:
        **{table: expand(f"{{folder}}/{table}.parquet", folder=EIGENSPACES_FOLDERS) for table in EIGENSPACES_RAW},
        script="workflow/scripts/tabulate_eigenspaces.py",
        code=code("studies", "runs", "trainers", "linalg/chance_overlaps", "linalg/grassmannian", "training/selection"),
        records=[
            *(f"{EIGENSPACES_STUDY}/runs/{run.path}/record.json" for run in TRAJECTORY_RUNS[EIGENSPACES]),
            *(f"{RESULTS}/runs/{run.path}/record.json" for group in EIGENSPACES_GROUPS for run in GROUPS[group]),
        ],
        metric_study=rules.metric_study.output,
    output:
        expand(f"{EIGENSPACES_STUDY}/{{table}}.parquet", table=EIGENSPACES_TABLES),
    log:
        f"{LOGS}/eigenspaces_tables.log",
    localrule: True
    params:
        measured=lambda w, input: flags({table: list(input[table]) for table in EIGENSPACES_RAW}),
    message:
        "Collecting all masks and eigenspaces into the study's tables"
    shell:
        "python {input.script} {params.measured} --metric-study {input.metric_study} --records {input.records}"
        " --output {EIGENSPACES_STUDY} --log {log}"


SHOWN[EIGENSPACES] = {
    "title": "Eigenspaces",
    "figures": eigenspaces_figures(),
    "tables": list(rules.eigenspaces_tables.output),
}
