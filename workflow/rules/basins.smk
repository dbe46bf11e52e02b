# The study of basins (Sagun et al. 2017): solutions of large and small batches, lines and paths between them.
BASINS_STUDY = f"{RESULTS}/{BASINS}"
BASINS_RAW = ["paths", "barriers"]
BASINS_TABLES = [*BASINS_RAW, "runs", "barrier_summary", "best_places"]
# All trainers and seeds of a data set and network: pairs of them are joined, however their trainings are put into jobs.
BASINS_NETWORKS = gathered(TRAJECTORY_RUNS[BASINS], lambda run: f"{run.dataset}/{run.network_label}")


def basins_flags():
    section = config[BASINS]
    of_path = {"kind": section["path"], "steps": section["path_steps"], "bends": section["bends"]}
    return flags({**of_path, "points": section["points"]})


rule basins_paths:
    input:
        script="workflow/scripts/basins.py",
        code=code(
            "landscape/basins_job",
            "landscape/ends",
            "landscape/lines",
            "landscape/paths",
            "landscape/spectra_job",
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
            f"{BASINS_STUDY}/runs/{run.path}/{file}"
            for run in BASINS_NETWORKS[w.solved]
            for file in ("trajectory.safetensors", "record.json")
        ],
        data=lambda w: f"resources/{w.solved.partition('/')[0]}.safetensors",
    output:
        **{table: f"{BASINS_STUDY}/measured/{{solved}}/{table}.parquet" for table in BASINS_RAW},
        record=f"{BASINS_STUDY}/measured/{{solved}}/record.json",
    log:
        f"{LOGS}/basins/{{solved}}.log",
    benchmark:
        f"{LOGS}/benchmarks/basins/{{solved}}.tsv"
    wildcard_constraints:
        solved="|".join(map(re.escape, BASINS_NETWORKS)),
    threads: THREADS_PER_JOB
    resources:
        **needs(mem_mb=8000, minutes=60),
    params:
        runs=lambda w: [run.path for run in BASINS_NETWORKS[w.solved]],
        settings=basins_flags(),
        test=lambda w: test_size_flag(BASINS, w.solved.partition("/")[0]),
        device=config["device"],
        folder=lambda w, output: os.path.dirname(output.record),
    message:
        "Lines and paths between solutions of {wildcards.solved}"
    shell:
        "python {input.script} {params.runs} --trajectories {BASINS_STUDY}/runs --data {input.data} {params.test}"
        " {params.settings} --device {params.device} --threads {threads} --output {params.folder} --log {log}"


rule basins_tables:
    input:
        **{
            table: [f"{BASINS_STUDY}/measured/{solved}/{table}.parquet" for solved in BASINS_NETWORKS]
            for table in BASINS_RAW
        },
        script="workflow/scripts/tabulate_basins.py",
        code=code("studies", "runs", "trainers"),
        records=[f"{BASINS_STUDY}/runs/{run.path}/record.json" for run in TRAJECTORY_RUNS[BASINS]],
    output:
        expand(f"{BASINS_STUDY}/{{table}}.parquet", table=BASINS_TABLES),
    log:
        f"{LOGS}/basins_tables.log",
    localrule: True
    message:
        "Collecting all lines and paths into the study's tables"
    shell:
        "python {input.script} --paths {input.paths} --barriers {input.barriers} --records {input.records}"
        " --output {BASINS_STUDY} --log {log}"


SHOWN[BASINS] = {
    "title": "Basins",
    "figures": {
        (
            f"{run.dataset}-{run.network_label}",
            name,
        ): f"{name} {flags({'dataset': run.dataset, 'network': run.network_label})}"
        for run in TRAJECTORY_RUNS[BASINS]
        for name in ("line", "path", "barriers")
    },
    "tables": list(rules.basins_tables.output),
}
