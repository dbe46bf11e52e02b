# The study of Sketching for Distributed Deep Learning (Shrivastava et al. 2024): tables, figures, notebook.
SKETCHING = f"{RESULTS}/sharper_sketching"
SKETCHING_TABLES = [
    "runs", "rounds", "learning_rates", "accuracy", "curvature", "density", "eigenvalues", "table1",
]  # fmt: skip


def sketching_figures():
    """(folder, file name) to what the plotting script needs: every figure that this profile's runs can fill."""
    trainers = [Trainer.parse(label) for label in {run.trainer for run in FEDERATED_RUNS}]
    names = ["learning_rates", "accuracy_against_rounds", "loss_against_rounds"]
    if any(trainer.reduction for trainer in trainers):
        names += ["accuracy_against_reduction", "accuracy_against_bytes", "lift_error"]
    names += ["error_memory"] * any(trainer.error_feedback for trainer in trainers)
    if CHECKPOINT_SPECTRA:
        names += ["spectra"] * bool(FEDERATION["checkpoint_losses"])
        names += ["curvature_over_rounds"] * bool(FEDERATION["checkpoint_rounds"])
    figures = {}
    for run, name in product(FEDERATED_RUNS, names):
        folder = f"{run.dataset}-{run.network_label}" + (f"-{run.variant}" if run.variant != "cross_entropy" else "")
        cell = {"dataset": run.dataset, "network": run.network_label, "variant": run.variant}
        figures[folder, name] = f"{name} {flags(cell)}"
    return figures


rule sharper_sketching_tables:
    input:
        script="workflow/scripts/tabulate_sharper_sketching.py",
        code=code(
            "studies",
            "figures/html",
            "runs",
            "trainers",
            "seeds",
            "config",
            "config_data",
            "config_schema",
            "jsonschema_import",
            "federation_config",
            "federated/partition",
            "data/catalog",
            "data/integrity",
            "training/selection",
            "curvature/checkpoint_spectra",
            "curvature/tables",
        ),
        config=rules.config.output,
        records=[f"{RESULTS}/runs/{run.path}/record.json" for run in FEDERATED_RUNS],
        rounds=[f"{RESULTS}/runs/{run.path}/rounds.parquet" for run in FEDERATED_RUNS],
        spectra=expand("{folder}/{table}.parquet", folder=CHECKPOINT_SPECTRA, table=CHECKPOINT_TABLES),
    output:
        expand(f"{SKETCHING}/{{table}}.parquet", table=SKETCHING_TABLES),
        csv=f"{SKETCHING}/table1.csv",
        html=report(
            f"{SKETCHING}/table1.html",
            caption="../report/sharper_sketching.rst",
            category="Sharper sketching",
            subcategory="Tables",
            labels={"item": "Table 1"},
        ),
    log:
        f"{LOGS}/sharper_sketching_tables.log",
    localrule: True
    message:
        "Collecting all federated runs into the study's tables"
    shell:
        "python {input.script} --config {input.config} --results {RESULTS} --output {SKETCHING} --log {log}"


SHOWN["sharper_sketching"] = {
    "title": "Sharper sketching",
    "figures": sketching_figures(),
    "tables": list(rules.sharper_sketching_tables.output),
}
