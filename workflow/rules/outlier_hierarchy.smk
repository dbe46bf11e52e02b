# The hierarchy of the outliers (Papyan 2019): GGNs of the full-spectrum study's networks by class and cross-class means.
HIERARCHY_STUDY = f"{RESULTS}/{HIERARCHY}"
HIERARCHY_RAW = ["parts", "means", "alignment"]
HIERARCHY_TABLES = [*HIERARCHY_RAW, "attribution", "matches", "density", "runs"]
HIERARCHY_CELLS = [cell for cell, runs in CELLS.items() if is_of_hierarchy(config, runs[0])]


rule class_means:
    input:
        script="workflow/scripts/class_means.py",
        code=code("linalg", "curvature", "networks", "data", "runs", "seeds", "checkpoints", "described", "devices"),
        model=f"{RESULTS}/selected/{{cell}}/model.safetensors",
        data=lambda w: f"resources/{Run.from_path(w.cell).dataset}.safetensors",
    output:
        **{table: f"{HIERARCHY_STUDY}/measured/{{cell}}/{table}.parquet" for table in HIERARCHY_RAW},
        record=f"{HIERARCHY_STUDY}/measured/{{cell}}/record.json",
    log:
        f"{LOGS}/class_means/{{cell}}.log",
    benchmark:
        f"{LOGS}/benchmarks/class_means/{{cell}}.tsv"
    threads: THREADS_PER_JOB
    resources:
        **needs(mem_mb=16000, minutes=120),
    params:
        settings=flags({"batch_size": config["spectrum"]["batch_size"], "split": "train"}),
        device=config["device"],
        folder=lambda w, output: os.path.dirname(output.record),
    message:
        "Class means of the gradients of {wildcards.cell}"
    shell:
        "python {input.script} {wildcards.cell} --model {input.model} --data {input.data} {params.settings}"
        " --device {params.device} --threads {threads} --output {params.folder} --log {log}"


rule outlier_hierarchy_tables:
    input:
        **{
            table: expand(f"{HIERARCHY_STUDY}/measured/{{cell}}/{table}.parquet", cell=HIERARCHY_CELLS)
            for table in HIERARCHY_RAW
        },
        script="workflow/scripts/tabulate_outlier_hierarchy.py",
        code=code("studies", "runs", "trainers"),
        full_spectrum=rules.full_spectrum_tables.output,
    output:
        expand(f"{HIERARCHY_STUDY}/{{table}}.parquet", table=HIERARCHY_TABLES),
    log:
        f"{LOGS}/outlier_hierarchy_tables.log",
    localrule: True
    message:
        "Collecting all class means into the study's tables"
    shell:
        "python {input.script} --parts {input.parts} --means {input.means} --alignment {input.alignment}"
        " --full-spectrum {STUDY} --output {HIERARCHY_STUDY} --log {log}"


def hierarchy_figures():
    """(folder, file name) to what the plotting script needs."""
    figures = {}
    for run in map(Run.from_path, HIERARCHY_CELLS):
        size = {} if run.examples_per_class is None else {"examples_per_class": run.examples_per_class}
        of_network = flags({"dataset": run.dataset, "network": run.network_label, **size})
        folder = f"{run.dataset}-{run.network_label}-n{run.examples_per_class or 'all'}"
        for name in ("hierarchy", "attribution", "embedding"):
            figures[folder, name] = f"{name} {of_network}"
    return figures


SHOWN[HIERARCHY] = {
    "title": "Outlier hierarchy",
    "figures": hierarchy_figures(),
    "tables": list(rules.outlier_hierarchy_tables.output),
}
