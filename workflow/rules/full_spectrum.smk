# The study of The Full Spectrum of Deepnet Hessians (Papyan 2018): tables, figures, notebook.
STUDY = f"{RESULTS}/full_spectrum"
STUDY_TABLES = [
    "runs", "density", "ritz", "eigenvalues", "bounds", "sums",
    "outliers", "outlier_positions", "components", "tails", "training_table",
]  # fmt: skip
FIGURE_SIZES = flags(config["figures"])


def study_figures():
    """(variant, file name) to what the plotting script needs: every figure that this profile's spectra can fill."""
    splits = config["spectrum"]["splits"]
    deflated = config["spectrum"]["deflation_rank"] != 0
    summaries = ["accuracy", "outlier_count", "bulk_energy", "negative_mass", *["outlier_positions"] * deflated]
    of_network = [n for n, split in ((1, "train"), (2, "test")) if split in splits]
    of_spectrum = [3] * ("train" in splits and deflated) + [4] * ("test" in splits) + [5] * (len(splits) == 2)
    figures = {}
    for run in RUNS:
        variant, dataset, network = run.variant, run.dataset, run.network_label
        for name in summaries:
            figures[variant, name] = f"{name} --variant {variant}"
        for number in of_network:
            figures[variant, f"figure{number}-{network}"] = f"figure{number} --variant {variant} --network {network}"
        for number in of_spectrum:
            of_run = {"variant": variant, "dataset": dataset, "network": network}
            arguments = f"figure{number} {flags(of_run)} {FIGURE_SIZES}"
            figures[variant, f"figure{number}-{dataset}-{network}"] = arguments
        if config["spectrum"]["operators"]:
            of_run = {"variant": variant, "dataset": dataset, "network": network}
            figures[variant, f"operators-{dataset}-{network}"] = f"operators {flags(of_run)} {FIGURE_SIZES}"
    return figures


rule full_spectrum_tables:
    input:
        script="workflow/scripts/tabulate_full_spectrum.py",
        code=code(
            "studies",
            "linalg",
            "figures/html",
            "runs",
            "trainers",
            "config",
            "config_data",
            "config_schema",
            "jsonschema_import",
            "federation_config",
            "federated/partition",
            "data/catalog",
            "data/integrity",
            "training/selection",
        ),
        config=rules.config.output,
        runs=[f"{RESULTS}/runs/{run.path}/record.json" for run in RUNS],
        selections=[f"{RESULTS}/selected/{cell}/selection.json" for cell in CELLS],
        spectra=expand("{folder}/{table}.parquet", folder=SPECTRA, table=SPECTRUM_TABLES),
        records=expand("{folder}/record.json", folder=SPECTRA),
    output:
        expand(f"{STUDY}/{{table}}.parquet", table=STUDY_TABLES),
        csv=f"{STUDY}/table1.csv",
        html=report(
            f"{STUDY}/table1.html",
            caption="../report/table1.rst",
            category="Full spectrum",
            subcategory="Tables",
            labels={"item": "Table 1"},
        ),
    log:
        f"{LOGS}/full_spectrum_tables.log",
    localrule: True
    message:
        "Collecting all spectra into the study's tables"
    shell:
        "python {input.script} --config {input.config} --results {RESULTS} --output {STUDY} --log {log}"


SHOWN["full_spectrum"] = {
    "title": "Full spectrum",
    "figures": study_figures(),
    "tables": list(rules.full_spectrum_tables.output),
}
