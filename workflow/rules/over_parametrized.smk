# The study of over-parametrized networks (Sagun et al. 2017): exact spectra, tables, figures.
EXACT_STUDY = f"{RESULTS}/{OVER_PARAMETRIZED}"
EXACT_RAW = ["spectra", "alignments"]


rule exact_spectra:
    input:
        script="workflow/scripts/exact_spectra.py",
        code=code(
            "landscape/exact_spectra",
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
            f"{EXACT_STUDY}/runs/{run.path}/{file}"
            for run in TRAJECTORY_JOBS[OVER_PARAMETRIZED][w.job]
            for file in ("trajectory.safetensors", "record.json")
        ],
        data=lambda w: f"resources/{w.job.partition('/')[0]}.safetensors",
    output:
        **{table: f"{EXACT_STUDY}/measured/{{job}}/{table}.parquet" for table in EXACT_RAW},
        record=f"{EXACT_STUDY}/measured/{{job}}/record.json",
    log:
        f"{LOGS}/exact_spectra/{{job}}.log",
    benchmark:
        f"{LOGS}/benchmarks/exact_spectra/{{job}}.tsv"
    wildcard_constraints:
        job="|".join(map(re.escape, TRAJECTORY_JOBS[OVER_PARAMETRIZED])),
    threads: THREADS_PER_JOB
    resources:
        **needs(mem_mb=16000, minutes=120),
    params:
        runs=lambda w: [run.path for run in TRAJECTORY_JOBS[OVER_PARAMETRIZED][w.job]],
        settings=flags({key: config[OVER_PARAMETRIZED][key] for key in ("top", "max_parameters")}),
        device=config["device"],
        folder=lambda w, output: os.path.dirname(output.record),
    message:
        "Exact spectra along the trainings of {wildcards.job}"
    shell:
        "python {input.script} {params.runs} --trajectories {EXACT_STUDY}/runs --data {input.data} {params.settings}"
        " --device {params.device} --threads {threads} --output {params.folder} --log {log}"


def amidst(clusters):
    """The clusters of which most others differ in their number, or in their separation, alone, on both axes if any."""

    def neighbours(name):
        number, dimensions, separation = name.split("-")[1:]
        others = [other.split("-")[1:] for other in clusters if other != name]
        along = sum(other[1:] == [dimensions, separation] for other in others)
        apart = sum(other[:2] == [number, dimensions] for other in others)
        return bool(along) + bool(apart), along + apart

    return max(clusters, key=neighbours, default=None)


def exact_figures():
    """(folder, file name) to what the plotting script needs: every figure that this profile's runs can fill."""
    datasets, figures = config[OVER_PARAMETRIZED]["datasets"], {}
    clusters = [dataset for dataset in datasets if dataset.startswith("clusters-")]
    for run in TRAJECTORY_RUNS[OVER_PARAMETRIZED]:
        # Further networks and clusters are there for the sweeps; what else they show stands in the tables.
        if not is_first_network(OVER_PARAMETRIZED, run) or (
            run.dataset in clusters and run.dataset != amidst(clusters)
        ):
            continue
        folder, of_network = f"{run.dataset}-{run.network_label}", {
            "dataset": run.dataset,
            "network": run.network_label,
        }
        for name in ("spectrum_before_after", "training", "output_gradients"):
            figures[folder, name] = f"{name} {flags(of_network)}"
        for name in ("width", "width_counts") if len(datasets[run.dataset]["networks"]) > 1 else ():
            figures[run.dataset, name] = f"{name} {flags({'dataset': run.dataset})}"
        if run.dataset in clusters and len(clusters) > 1:
            figures[folder, "data"] = f"data {flags(of_network)}"
    return figures


EXACT_TABLES = [*EXACT_RAW, "runs", "counts", "outlier_match", "width_sweep", "data_sweep", "slopes"]


rule over_parametrized_tables:
    input:
        **{
            table: [f"{EXACT_STUDY}/measured/{job}/{table}.parquet" for job in TRAJECTORY_JOBS[OVER_PARAMETRIZED]]
            for table in EXACT_RAW
        },
        script="workflow/scripts/tabulate_over_parametrized.py",
        code=code(
            "studies",
            "runs",
            "trainers",
            "linalg/outliers",
            "linalg/dense_eigenpairs",
            "data/catalog",
            "data/dataset",
            "data/derived_names",
        ),
        records=[f"{EXACT_STUDY}/runs/{run.path}/record.json" for run in TRAJECTORY_RUNS[OVER_PARAMETRIZED]],
    output:
        expand(f"{EXACT_STUDY}/{{table}}.parquet", table=EXACT_TABLES),
    log:
        f"{LOGS}/over_parametrized_tables.log",
    localrule: True
    message:
        "Collecting all exact spectra into the study's tables"
    shell:
        "python {input.script} --spectra {input.spectra} --alignments {input.alignments} --records {input.records}"
        " --output {EXACT_STUDY} --log {log}"


SHOWN[OVER_PARAMETRIZED] = {
    "title": "Over-parametrized networks",
    "figures": exact_figures(),
    "tables": list(rules.over_parametrized_tables.output),
}
